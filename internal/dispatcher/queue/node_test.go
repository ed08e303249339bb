package queue

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// While a slot moves from one node to another its keys lie on both. What is published and sent meanwhile must neither
// run on a part of them nor begin anew on the other node.
func TestAShardWhoseSlotMoves(t *testing.T) {
	cluster := redistest.ClusterForTest(t)
	client, err := Connect(cluster.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, c := place{client, newPrefix(), 1}.run(t, func(_ *Options, c *sink) {
		c.ends = func(l Lease) Settlement {
			if l.SubscriptionID == "later" { // so that the key is always there that every script names
				return Settlement{Lease: l, Result: Retry, RetryAfter: time.Hour}
			}
			return done(l)
		}
	})
	configure(t, q, "s1", "s2", "later")
	publish(t, q, publication("e", "later"))
	slot := int(client.ClusterKeySlot(t.Context(), q.shards[0].keys.ready()).Val())

	done := make(chan struct{})
	var publishing sync.WaitGroup
	var accepted []Publication
	publishing.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
			e := publication(fmt.Sprint("e", n), "s1", "s2")
			if _, err := q.Publish(t.Context(), []Publication{e}); err == nil {
				accepted = append(accepted, e)
			}
		}
	})
	from, _, err := cluster.Owner(t.Context(), slot)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		to := cluster.Servers[n%3]
		if to == from {
			continue
		}
		before := len(c.got())
		pause := 200 * time.Millisecond // in which all keys that there are lie on the first node, but not those to come
		err := cluster.Move(t.Context(), slot, from, to, func() {
			<-time.After(pause)
			pause = 2 * time.Millisecond
		})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "deliveries go on", func() bool { return len(c.got()) > before+10 })
		from = to
	}
	close(done)
	publishing.Wait()
	eventually(t, "the last slot is found", func() bool { return q.Cancel(t.Context(), []string{"later"}) == nil })
	empty(t, q)
	taken := map[string]bool{}
	for _, l := range c.got() {
		taken[l.EventID] = true
	}
	for _, e := range accepted {
		if !taken[e.EventID] {
			t.Errorf("event %s was lost", e.EventID)
		}
	}
	audited(t, q)
	t.Logf("%d accepted, %d leased", len(accepted), len(c.got()))
}
