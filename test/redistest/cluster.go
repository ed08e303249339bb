package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Cluster is a Redis Cluster of masters without replicas.
type Cluster struct{ Servers []*Server }

const slots = 16384

// StartCluster runs a cluster of so many masters in dir and waits until it serves.
func StartCluster(dir string, masters int) (*Cluster, error) {
	c := &Cluster{}
	buses := make([]int, masters)
	for i := range masters {
		bus, err := freePort()
		if err != nil {
			return nil, err
		}
		buses[i] = bus
		s, err := Start(dir, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
			"--cluster-config-file", fmt.Sprintf("nodes-%d.conf", i), "--cluster-node-timeout", "5000")
		if err != nil {
			c.Kill()
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.join(ctx, buses); err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// join gives each master its slots and makes them meet.
func (c *Cluster) join(ctx context.Context, buses []int) error {
	n := len(c.Servers)
	for i, s := range c.Servers {
		client := s.Client()
		first, last := i*slots/n, (i+1)*slots/n-1
		err := client.ClusterAddSlotsRange(ctx, first, last).Err()
		for k, other := range c.Servers {
			host, port, _ := net.SplitHostPort(other.Address)
			err = errors.Join(err, client.Do(ctx, "CLUSTER", "MEET", host, port, buses[k]).Err())
		}
		if err = errors.Join(err, client.Close()); err != nil {
			return fmt.Errorf("join node %d of the cluster: %w", i, err)
		}
	}
	for i, s := range c.Servers {
		if err := waitServing(ctx, s, n); err != nil {
			return fmt.Errorf("node %d of the cluster: %w", i, err)
		}
	}
	return nil
}

func waitServing(ctx context.Context, s *Server, masters int) error {
	client := s.Client()
	defer func() { _ = client.Close() }()
	for {
		info, err := client.ClusterInfo(ctx).Result()
		if err == nil && strings.Contains(info, "cluster_state:ok") &&
			strings.Contains(info, "cluster_size:"+strconv.Itoa(masters)+"\r") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not serve: %w", errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// URL is its address as REDIS_URL takes it.
func (c *Cluster) URL() string { return "redis://" + strings.Join(c.addresses(), ",") }

// Client connects to the cluster.
func (c *Cluster) Client() *redis.ClusterClient {
	return redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.addresses()})
}

func (c *Cluster) addresses() []string {
	addresses := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addresses[i] = s.Address
	}
	return addresses
}

// Kill ends all servers and waits.
func (c *Cluster) Kill() {
	for _, s := range c.Servers {
		s.Kill()
	}
}

// ClusterForTest starts a cluster of three masters that ends with the test.
func ClusterForTest(t testing.TB) *Cluster {
	t.Helper()
	c, err := StartCluster(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}
