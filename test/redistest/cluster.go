package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/test/ports"
)

// Cluster is a Redis Cluster.
type Cluster struct {
	Servers  []*Server // that are masters at its start
	Replicas []*Server // each of the server in the same place, at its start
	buses    map[*Server]int
	timeout  time.Duration // after which a node that does not answer is taken for dead
}

const slots = 16384

// StartCluster runs a cluster of so many masters without replicas in dir and waits until it serves.
func StartCluster(dir string, masters int) (*Cluster, error) {
	c := &Cluster{buses: map[*Server]int{}, timeout: 5 * time.Second}
	return c, c.start(dir, masters, 0)
}

// StartReplicatedCluster runs a cluster in which each master has a replica, which takes over when its master does not
// answer for the timeout.
func StartReplicatedCluster(dir string, masters int, timeout time.Duration, args ...string) (*Cluster, error) {
	c := &Cluster{buses: map[*Server]int{}, timeout: timeout}
	return c, c.start(dir, masters, masters, args...)
}

func (c *Cluster) start(dir string, masters, replicas int, args ...string) (err error) {
	defer func() {
		if err != nil {
			c.Kill()
		}
	}()
	for i := range masters + replicas {
		s, err := c.startNode(dir, i, args)
		if err != nil {
			return err
		}
		if i < masters {
			c.Servers = append(c.Servers, s)
		} else {
			c.Replicas = append(c.Replicas, s)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.join(ctx); err != nil {
		return err
	}
	return c.replicate(ctx)
}

func (c *Cluster) startNode(dir string, i int, args []string) (*Server, error) {
	bus, err := ports.Free()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("node-%d", i)
	s, err := Start(dir, append([]string{
		"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(bus),
		"--cluster-config-file", name + ".conf", "--cluster-node-timeout", strconv.FormatInt(c.timeout.Milliseconds(), 10),
		"--dbfilename", name + ".rdb", "--appenddirname", name + "-aof", "--cluster-allow-replica-migration", "no",
	}, args...)...)
	if err == nil {
		c.buses[s] = bus
	}
	return s, err
}

// join gives each master its slots and makes all meet.
func (c *Cluster) join(ctx context.Context) error {
	n := len(c.Servers)
	for i, s := range c.Servers {
		client := s.Client()
		first, last := i*slots/n, (i+1)*slots/n-1
		err := client.ClusterAddSlotsRange(ctx, first, last).Err()
		for other, bus := range c.buses {
			host, port, _ := net.SplitHostPort(other.Address)
			err = errors.Join(err, client.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err())
		}
		if err = errors.Join(err, client.Close()); err != nil {
			return fmt.Errorf("join node %d of the cluster: %w", i, err)
		}
	}
	for i, s := range append(slices.Clone(c.Servers), c.Replicas...) {
		if err := waitServing(ctx, s, n); err != nil {
			return fmt.Errorf("node %d of the cluster: %w", i, err)
		}
	}
	return nil
}

// replicate makes each replica follow its master, and waits until it does.
func (c *Cluster) replicate(ctx context.Context) error {
	for i, s := range c.Replicas {
		master, replica := c.Servers[i].Client(), s.Client()
		id, err := master.ClusterMyID(ctx).Result()
		err = errors.Join(err, replica.ClusterReplicate(ctx, id).Err(), master.Close(), replica.Close())
		if err != nil {
			return fmt.Errorf("make replica %d of the cluster: %w", i, err)
		}
	}
	for i, s := range c.Replicas {
		if err := s.WaitLinked(ctx); err != nil {
			return fmt.Errorf("replica %d of the cluster: %w", i, err)
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
	var addresses []string
	for _, s := range append(slices.Clone(c.Servers), c.Replicas...) {
		addresses = append(addresses, s.Address)
	}
	return addresses
}

// Slot is that of a key.
func (c *Cluster) Slot(ctx context.Context, key string) (int, error) {
	client := c.Servers[0].Client()
	defer func() { _ = client.Close() }()
	slot, err := client.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return 0, fmt.Errorf("ask for the slot of %s: %w", key, err)
	}
	return int(slot), nil
}

// Move gives a slot from one server to another, as an operator's resharding does: key by key. between is called before
// each key and once before the slot changes its owner.
func (c *Cluster) Move(ctx context.Context, slot int, from, to *Server, between func()) error {
	source, target := from.Client(), to.Client()
	defer func() { _, _ = source.Close(), target.Close() }()
	sourceID, err := source.ClusterMyID(ctx).Result()
	targetID, err2 := target.ClusterMyID(ctx).Result()
	err = errors.Join(err, err2,
		target.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID).Err(),
		source.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", targetID).Err())
	if err != nil {
		return fmt.Errorf("begin to move slot %d: %w", slot, err)
	}
	host, port, _ := net.SplitHostPort(to.Address)
	for {
		between()
		keys, err := source.ClusterGetKeysInSlot(ctx, slot, 1).Result()
		if err != nil {
			return fmt.Errorf("list the keys of slot %d: %w", slot, err)
		}
		if len(keys) == 0 {
			break
		}
		if err := source.Do(ctx, "MIGRATE", host, port, keys[0], 0, 5000).Err(); err != nil {
			return fmt.Errorf("move key %s of slot %d: %w", keys[0], slot, err)
		}
	}
	err = errors.Join(
		target.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID).Err(),
		source.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID).Err())
	if err != nil {
		return fmt.Errorf("end the move of slot %d: %w", slot, err)
	}
	return nil
}

// Owner is the server that is the master of a slot now, and its replica, as far as they answer.
func (c *Cluster) Owner(ctx context.Context, slot int) (master, replica *Server, err error) {
	byAddress := map[string]*Server{}
	for s := range c.buses {
		byAddress[s.Address] = s
	}
	for s := range c.buses {
		client := s.Client()
		ranges, err := client.ClusterSlots(ctx).Result() //nolint:staticcheck // its successor takes Redis 7
		if _ = client.Close(); err != nil {
			continue
		}
		for _, r := range ranges {
			if slot < r.Start || slot > r.End {
				continue
			}
			master = byAddress[r.Nodes[0].Addr]
			if len(r.Nodes) > 1 {
				replica = byAddress[r.Nodes[1].Addr]
			}
			return master, replica, nil
		}
	}
	return nil, nil, fmt.Errorf("no node knows slot %d", slot)
}

// Kill ends all servers and waits.
func (c *Cluster) Kill() {
	for s := range c.buses {
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
