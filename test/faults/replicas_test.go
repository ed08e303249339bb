// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/test/redistest"
)

const (
	// parts of the queue, of which each master has some.
	parts = 6
	// silence after which the nodes of a Cluster take one of them for dead.
	silence = time.Second
	// deaf is for how long a replica receives nothing before its master dies. It is shorter than a promise that a 202
	// waits for, and long enough for what waits for a second attempt to be lost.
	deaf = 2 * time.Second
)

// forgotten is what comes twice after so many failovers: of what the new master knew, that which ended while it was deaf.
// It was under way, or waited for its second attempt, which comes after 1 to 1.1 s.
func forgotten(times int) int {
	const waiting = int(1100 * time.Millisecond / pace / flakyEvery)
	return times * (whole + waiting)
}

// slotsOf are the slots in which the parts of the queue lie.
func slotsOf(t *testing.T, cluster *redistest.Cluster) []int {
	t.Helper()
	slots := make([]int, parts)
	for i := range slots {
		slot, err := cluster.Slot(t.Context(), fmt.Sprintf("{nexus%d}", i))
		if err != nil {
			t.Fatal(err)
		}
		slots[i] = slot
	}
	return slots
}

// By turns, a master of a Redis Cluster dies and its replica takes over, and a slot moves to another master with the keys
// that lie in it.
func TestAClusterThatChanges(t *testing.T) {
	cluster, err := redistest.StartReplicatedCluster(t.TempDir(), 3, silence, "--appendonly", "yes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Kill)
	slots := slotsOf(t, cluster)
	want := expectation{
		redisURL: cluster.URL(), shards: parts, flags: []string{"--durability=replica"}, holdsUp: true,
		duplicates: func(changes int) int { return outage((changes + 1) / 2) }, // a slot that moves costs nothing
	}
	try(t, want, func(ctx context.Context, r *trial) int {
		changes := 0
		for ; ctx.Err() == nil || changes < 2; changes++ {
			master, replica := r.owner(cluster, slots[changes%parts])
			if changes%2 == 0 {
				r.failOver(cluster, master, replica, slots[changes%parts])
			} else {
				r.move(cluster, master, slots, changes%parts)
			}
			r.pass(calm) // the load runs
		}
		return changes
	})
}

func (r *trial) owner(cluster *redistest.Cluster, slot int) (master, replica *redistest.Server) {
	r.Helper()
	master, replica, err := cluster.Owner(r.Context(), slot)
	if err != nil || replica == nil {
		r.Fatal("no replica can take over: ", err)
	}
	return master, replica
}

// failOver kills the master, which comes back as a replica of the one that takes over.
func (r *trial) failOver(cluster *redistest.Cluster, master, replica *redistest.Server, slot int) {
	r.Helper()
	master.Kill()
	r.eventually("the replica takes over", func() error {
		if now, _, err := cluster.Owner(r.Context(), slot); err != nil || now != replica {
			return fmt.Errorf("it does not: %w", err)
		}
		return nil
	})
	r.must(master.Restart())
	r.must(master.WaitLinked(r.Context()))
}

// move gives a part's slot to the next master that has others.
func (r *trial) move(cluster *redistest.Cluster, from *redistest.Server, slots []int, part int) {
	r.Helper()
	for n := range slots {
		to, _ := r.owner(cluster, slots[(part+n)%len(slots)])
		if to != from {
			r.must(cluster.Move(r.Context(), slots[part], from, to, func() { r.pass(time.Millisecond) }))
			return
		}
	}
	r.Error("a single master has all parts")
}

// A master dies after its replica has received nothing for a while, and the Sentinels let the replica take over. What
// waited for the replica is there; of what did not wait something is lost.
func TestAMasterWhoseReplicaIsBehindDies(t *testing.T) {
	for _, durability := range []queue.Durability{queue.ByReplica, queue.ByRedis} {
		t.Run("durability "+string(durability), func(t *testing.T) {
			master := redistest.ForTest(t, "--appendonly", "yes")
			replica := master.ReplicaForTest(t, "--appendonly", "yes")
			sentinels := redistest.SentinelsForTest(t, master)
			want := expectation{
				redisURL: sentinels.URL(), loses: durability == queue.ByRedis,
				flags: []string{"--durability=" + string(durability)}, holdsUp: true, duplicates: forgotten,
			}
			try(t, want, func(ctx context.Context, r *trial) int {
				deaths := 0
				for ; deaths == 0 || left(ctx) > deaf+4*calm; deaths++ {
					r.cutOff(master, replica)
					r.pass(deaf)
					master.Kill()
					r.must(replica.Signal(syscall.SIGCONT))
					r.eventually("the replica takes over", replica.CheckMaster)
					master, replica = replica, master
					r.must(replica.Restart())
					r.must(replica.Follow(r.Context(), master))
					r.must(sentinels.Agree(r.Context(), master))
					r.pass(3 * calm) // the load runs: most of what came before was refused
				}
				return deaths
			})
		})
	}
}

// left is how long a fault still lasts.
func left(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return time.Until(end)
}

// cutOff stops a replica and cuts its connection, so that not even the system keeps for it what its master sends.
func (r *trial) cutOff(master, replica *redistest.Server) {
	r.Helper()
	r.must(replica.Signal(syscall.SIGSTOP))
	client := master.Client()
	defer func() { _ = client.Close() }()
	r.must(client.ClientKillByFilter(r.Context(), "TYPE", "replica").Err())
}

// With durability disk, whatever the log's setting, a 202 is for what is on the disk.
func TestARedisThatIsKilledWhereADiskIsWaitedFor(t *testing.T) {
	server := redistest.WithWAITAOF(t, "--appendonly", "yes", "--appendfsync", "everysec")
	want := expectation{redisURL: server.URL(), flags: []string{"--durability=disk"}, holdsUp: true, duplicates: outage}
	try(t, want, func(ctx context.Context, r *trial) int {
		return r.every(ctx, 3*time.Second, func(int) {
			server.Kill()
			r.must(server.Restart())
		})
	})
}
