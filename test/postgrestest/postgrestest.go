// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package postgrestest starts real PostgreSQL servers on loopback for tests and measurements, and ends them.
// A machine without PostgreSQL fails the test: what we promise rests on what it really does.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a PostgreSQL of its own. Anybody on the machine may log in as its superuser, and it writes to the disk
// without waiting: it keeps its data when it crashes, but not when the machine does.
type Server struct {
	Address string // host:port
	Dir     string // its data
	args    []string
	initdb  []string
	cmd     *exec.Cmd
	waited  chan struct{}
}

const (
	startTimeout = 30 * time.Second
	superuser    = "nexus"
)

// Start makes a server in a directory of its own, on a free port of loopback, with the given further settings, such as
// "shared_buffers=1GB", or flags of initdb, such as "--wal-segsize=1". Close ends it.
func Start(settings ...string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	// Not testing's TempDir: PostgreSQL's own user could not enter it.
	s := &Server{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if s.Dir, err = os.MkdirTemp("", "postgrestest"); err != nil {
		return nil, fmt.Errorf("make a directory for PostgreSQL: %w", err)
	}
	s.args = []string{"-D", s.Dir, "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", ""}
	for _, setting := range append([]string{
		"fsync=off", "full_page_writes=off", "log_min_messages=panic",
	}, settings...) {
		if strings.HasPrefix(setting, "--") {
			s.initdb = append(s.initdb, setting)
			continue
		}
		s.args = append(s.args, "-c", setting)
	}
	err = s.initialise()
	if err == nil {
		err = s.Restart()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) initialise() error {
	if owner := servant(); owner != nil {
		if err := os.Chown(s.Dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("give the directory for PostgreSQL to its user: %w", err)
		}
	}
	cmd, err := command("initdb", append([]string{
		"-D", s.Dir, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
	}, s.initdb...)...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb in %s: %w\n%s", s.Dir, err, out)
	}
	return nil
}

// Restart runs the server again, on the same port and data, after Kill or Stop.
func (s *Server) Restart() error {
	cmd, err := command("postgres", s.args...)
	if err != nil {
		return err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.cmd, s.waited = cmd, make(chan struct{})
	go func(waited chan struct{}) {
		_ = cmd.Wait()
		close(waited)
	}(s.waited)
	return s.waitReady()
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres at %s did not answer within %s: %w", s.Address, startTimeout, err)
		case <-s.waited:
			return errors.New("postgres ended at once; what it says is above, and its data in " + s.Dir)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// URL is a database's address as POSTGRES_URL takes it.
func (s *Server) URL(database string) string {
	return "postgres://" + superuser + "@" + s.Address + "/" + database + "?sslmode=disable"
}

var databases atomic.Int64

// Database makes an empty database and returns its address.
func (s *Server) Database(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	name := "test_" + strconv.FormatInt(databases.Add(1), 10)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	return s.URL(name), nil
}

// Pid of the running server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop ends it as an operator would, and waits: what is under way is cut off, what is committed is kept.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

// Kill ends it as a crash would, and waits: it recovers at its next start.
func (s *Server) Kill() { s.end(syscall.SIGQUIT) }

// Close kills it and removes its data.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.Dir)
}

func (s *Server) end(signal syscall.Signal) {
	if s.waited == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.waited:
	case <-time.After(startTimeout):
		_ = s.cmd.Process.Kill()
		<-s.waited
	}
}

// ForTest starts a server that ends with the test.
func ForTest(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Start(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func freePort() (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // a TCP listener has a TCP address
}
