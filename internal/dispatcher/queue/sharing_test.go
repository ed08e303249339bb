package queue

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"nexus.io/webhooks/test/redistest"
)

// What many goroutines bring at once goes to Redis together, and so does what they bring back.
func TestConcurrentCallsShareRoundTrips(t *testing.T) {
	const events = 200
	p := onServer(t, redistest.ForTest(t))
	scripts := func() int {
		for line := range strings.Lines(p.client.Info(t.Context(), "commandstats").Val()) {
			if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
				calls, _, _ := strings.Cut(rest, ",")
				n, err := strconv.Atoi(calls)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		t.Fatal("no script was called")
		return 0
	}
	few := func(what string, before int) {
		t.Helper()
		switch made := scripts() - before; {
		case made == 0:
			t.Errorf("%s: nothing was counted", what)
		case made >= events/4:
			t.Errorf("%d %s took %d calls of scripts", events, what, made)
		}
	}

	c := &sink{room: 1000, ends: done, hold: true}
	c.q = p.queue(t, nil)
	configure(t, c.q, "s1")
	before := scripts()
	var publishing sync.WaitGroup
	for n := range events {
		publishing.Go(func() {
			if _, err := c.q.Publish(t.Context(), []Publication{publication(fmt.Sprint("e", n), "s1")}); err != nil {
				t.Error(err)
			}
		})
	}
	s := c.q.shards[0]
	eventually(t, "all publishers wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.publishes) == events
	})
	start(t, c.q, c)
	publishing.Wait()
	eventually(t, "all is leased", func() bool { return len(c.got()) == events })
	few("publications", before)

	before = scripts()
	c.letGo(Done)
	eventually(t, "all is settled", func() bool { return size(t, c.q) == 0 })
	few("settlements", before)
	audited(t, c.q)
}
