// Package redistest starts real Redis servers on loopback for tests and benchmarks, and ends them.
// A machine without redis-server fails the test: what we promise rests on what Redis really does.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/ports"
)

// Server is a redis-server process.
type Server struct {
	Address string // host:port
	Dir     string
	program string
	cmd     *exec.Cmd
	args    []string
	waited  chan struct{}
	disk    *disk // nil: nobody traces what reaches it
}

const startTimeout = 15 * time.Second

// Start runs a redis-server in dir on a free port with the given further arguments, such as "--appendonly", "yes".
func Start(dir string, args ...string) (*Server, error) {
	return startProgram(Redis, dir, args...)
}

func startProgram(program, dir string, args ...string) (*Server, error) {
	s, err := newServer(program, dir, args...)
	if err != nil {
		return nil, err
	}
	return s, s.Restart()
}

func newServer(program, dir string, args ...string) (*Server, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	s := &Server{Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Dir: dir, program: program}
	s.args = append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir, "--save", "",
		"--logfile", filepath.Join(dir, "redis-"+strconv.Itoa(port)+".log"), "--daemonize", "no",
		"--repl-diskless-sync-delay", "0", // a replica need not wait for others to come
	}, args...)
	return s, nil
}

// Restart runs the server again, on the same port and data, after Kill or Stop.
func (s *Server) Restart() error {
	path, err := find(s.program)
	if err != nil {
		return err
	}
	s.cmd = exec.CommandContext(context.Background(), path, s.args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = os.Stderr
	if s.disk != nil {
		inherited, err := s.disk.trace(s.cmd)
		if err != nil {
			return err
		}
		defer func() { _ = inherited.Close() }()
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.program, err)
	}
	s.waited = make(chan struct{})
	go func(cmd *exec.Cmd, waited chan struct{}) {
		_ = cmd.Wait()
		close(waited)
	}(s.cmd, s.waited)
	return s.waitReady()
}

func find(program string) (path string, err error) {
	if path, err = exec.LookPath(program); err != nil {
		return "", fmt.Errorf("%s is not installed; on Debian hack/ensure-packages installs it: %w", program, err)
	}
	return path, nil
}

func (s *Server) waitReady() error {
	client := s.Client()
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s at %s did not answer within %s: %w", s.program, s.Address, startTimeout, err)
		case <-s.waited:
			return errors.New(s.program + " ended at once; see its log in " + s.Dir)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Client connects to the server.
func (s *Server) Client() *redis.Client { return redis.NewClient(&redis.Options{Addr: s.Address}) }

// URL is its address as REDIS_URL takes it.
func (s *Server) URL() string { return "redis://" + s.Address }

// Pid of the running process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Signal sends a signal, such as SIGKILL or SIGSTOP.
func (s *Server) Signal(signal syscall.Signal) error { return s.cmd.Process.Signal(signal) }

// Kill ends it as a crash would, and waits.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.waited
}

// ForTest starts a server that ends with the test.
func ForTest(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := Start(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// WithWAITAOF starts a server that ends with the test and knows WAITAOF.
func WithWAITAOF(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := startProgram(Valkey, t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}
