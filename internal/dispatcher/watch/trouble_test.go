// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nexus.io/webhooks/internal/routing"
)

// logged is a log that a test reads while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestAKubernetesAPIThatIsAwayAtTheStartIsToldAndWaitedFor(t *testing.T) {
	p, config := newProxy(t)
	p.down()
	var log logged
	b := newBench(t, func(o *Options) {
		o.Config, o.Log = config, slog.New(slog.NewTextHandler(&log, nil))
	})
	sub := b.subscribe("early")
	if err := b.w.Trouble(); err != nil {
		t.Errorf("trouble before anything was tried: %v", err)
	}
	b.start()
	eventually(t, "it tells its trouble", func() bool { return b.w.Trouble() != nil })
	want := "the Kubernetes API cannot be read: dial tcp " + p.address + ": connect: connection refused"
	if err := b.w.Trouble(); err == nil || err.Error() != want {
		t.Errorf("trouble is %v, want %s", err, want)
	}
	for _, part := range []string{"level=WARN", "The Kubernetes API cannot be read", p.address, "connection refused"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q: %s", part, log.String())
		}
	}
	p.up(t)
	eventually(t, "it is ready by itself", b.w.Ready)
	b.eventuallyRoute(sub, "is there", func(*routing.Route) bool { return true })
	eventually(t, "the trouble is over", func() bool { return b.w.Trouble() == nil })
}

func TestALastingTroubleIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		trouble := newTrouble(slog.New(slog.NewTextHandler(&log, nil)), func() bool { return true })
		const rounds, every = 13, 10 * time.Second // two minutes
		for range rounds {
			for _, watched := range []string{watchedSubscriptions, watchedByType, watchedByLabel} {
				trouble.begins(watched, errDown)
			}
			pause(t.Context(), every)
		}
		const want = `msg="Watching the Kubernetes API was interrupted, going on with what is cached"`
		if n := strings.Count(log.String(), want); n != 3 {
			t.Errorf("told %d times in two minutes, want 3: %s", n, log.String())
		}
	})
}

func TestItEndsAtOnceWhileTheKubernetesAPIIsAway(t *testing.T) {
	for name, loaded := range map[string]bool{"before the table is complete": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			p, config := newProxy(t)
			b := newBench(t, func(o *Options) { o.Config = config })
			b.w.trouble.again = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			if !loaded {
				p.down()
			}
			ended := make(chan error, 1)
			go func() { ended <- b.w.Run(ctx) }()
			if loaded {
				eventually(t, "it is ready", b.w.Ready)
				p.down()
			}
			for _, watched := range []string{watchedSubscriptions, watchedByType, watchedByLabel} {
				eventually(t, "it has trouble with "+watched, func() bool {
					b.w.trouble.mu.Lock()
					defer b.w.trouble.mu.Unlock()
					return b.w.trouble.found[watched] != nil
				})
			}
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run ended with %v", err)
				}
			case <-time.After(patience):
				t.Error("it goes on waiting")
			}
		})
	}
}

func TestTheQueueIsLeftAloneUntilItIsUsable(t *testing.T) {
	usable := make(chan struct{})
	b := newBench(t, func(o *Options) { o.QueueUsable = usable })
	sub := b.subscribe("patient")
	b.start()
	eventually(t, "the caches are filled", func() bool { return b.w.objects.subscription(keyOf(sub)) != nil })
	if configured, listed := b.queue.counts(); configured+listed > 0 || b.w.Ready() {
		t.Errorf("configured %d times, listed %d times, ready: %v", configured, listed, b.w.Ready())
	}
	close(usable)
	b.eventuallyRoute(sub, "is there", func(*routing.Route) bool { return true })
}
