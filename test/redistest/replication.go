package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/test/ports"
)

// WaitLinked returns once the server is a replica that has its master's data and follows it.
func (s *Server) WaitLinked(ctx context.Context) error {
	client := s.Client()
	defer func() { _ = client.Close() }()
	for {
		info, err := client.Info(ctx, "replication").Result()
		if err == nil && strings.Contains(info, "master_link_status:up") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not follow its master: %w", s.Address, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// CheckMaster returns nil if the server is a master now.
func (s *Server) CheckMaster() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	client := s.Client()
	defer func() { _ = client.Close() }()
	info, err := client.Info(ctx, "replication").Result()
	if err == nil && !strings.Contains(info, "role:master") {
		err = errors.New("it is a replica")
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.Address, err)
	}
	return nil
}

// Follow makes the server a replica of another, and waits until it has its data.
func (s *Server) Follow(ctx context.Context, master *Server) error {
	host, port, _ := net.SplitHostPort(master.Address)
	client := s.Client()
	defer func() { _ = client.Close() }()
	if err := client.ReplicaOf(ctx, host, port).Err(); err != nil {
		return fmt.Errorf("make %s follow %s: %w", s.Address, master.Address, err)
	}
	return s.WaitLinked(ctx)
}

// ReplicaForTest starts a replica of the server that ends with the test, and waits until it follows.
func (s *Server) ReplicaForTest(t testing.TB, args ...string) *Server {
	t.Helper()
	host, port, _ := net.SplitHostPort(s.Address)
	r, err := startProgram(s.program, t.TempDir(), append([]string{"--replicaof", host + " " + port}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := r.WaitLinked(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

// Sentinels watch a master.
type Sentinels struct{ Servers []*Server }

// MasterName is what the Sentinels call the master that they watch.
const MasterName = "queue"

// SentinelsForTest starts three Sentinels, which end with the test. They take the master for dead after a second.
func SentinelsForTest(t testing.TB, master *Server) *Sentinels {
	t.Helper()
	s := &Sentinels{}
	for range 3 {
		one, err := startSentinel(t.TempDir(), master)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(one.Kill)
		s.Servers = append(s.Servers, one)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for _, one := range s.Servers {
		if err := one.waitSentinel(ctx, len(s.Servers)-1); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func startSentinel(dir string, master *Server) (*Server, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	host, masterPort, _ := net.SplitHostPort(master.Address)
	config := filepath.Join(dir, "sentinel.conf")
	lines := []string{
		"port " + strconv.Itoa(port), "bind 127.0.0.1", "dir " + dir, "logfile " + filepath.Join(dir, "sentinel.log"),
		fmt.Sprintf("sentinel monitor %s %s %s 2", MasterName, host, masterPort),
		"sentinel down-after-milliseconds " + MasterName + " 1000",
		// They look at a replica that is to take over once a second, and give up after this.
		"sentinel failover-timeout " + MasterName + " 5000",
	}
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("configure a Sentinel: %w", err)
	}
	s := &Server{
		Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Dir: dir, program: master.program,
		args: []string{config, "--sentinel"},
	}
	return s, s.Restart()
}

// Agree returns once all name the server as the master, so that none is still busy with letting it take over.
func (s *Sentinels) Agree(ctx context.Context, master *Server) error {
	host, port, _ := net.SplitHostPort(master.Address)
	for _, one := range s.Servers {
		if err := one.waitNames(ctx, host, port); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) waitNames(ctx context.Context, host, port string) error {
	client := s.Client()
	defer func() { _ = client.Close() }()
	for {
		named, err := client.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
		if err == nil && slices.Equal(named, []string{host, port}) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Sentinel %s names %v as the master: %w", s.Address, named, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// waitSentinel returns once it knows so many other Sentinels and a replica of the master.
func (s *Server) waitSentinel(ctx context.Context, others int) error {
	client := s.Client()
	defer func() { _ = client.Close() }()
	for {
		info, err := client.Info(ctx, "sentinel").Result()
		if err == nil && strings.Contains(info, fmt.Sprintf("slaves=1,sentinels=%d", others+1)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Sentinel %s does not know the others: %w", s.Address, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// URL is the address of what they watch, as REDIS_URL takes it.
func (s *Sentinels) URL() string {
	addresses := make([]string, len(s.Servers))
	for i, one := range s.Servers {
		addresses[i] = one.Address
	}
	return "redis-sentinel://" + strings.Join(addresses, ",") + "/" + MasterName
}
