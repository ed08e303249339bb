// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceGivesItsRateAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(10, 5)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var given atomic.Int64
		var running sync.WaitGroup
		for range 100 {
			running.Go(func() {
				switch err := p.wait(ctx); {
				case err == nil:
					given.Add(1)
				case !errors.Is(err, errBusy):
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := given.Load(); n != 5 {
			t.Errorf("%d had their turn at once, want the burst of 5", n)
		}
		running.Wait()
		if n := given.Load(); n < 24 || n > 25 {
			t.Errorf("%d had their turn in 2 s, want 5 and 10 a second", n)
		}
	})
}

// TestPaceIsAskedInTheOrderOfItsTimes has everybody who asks the time held up behind it: a Limiter that is told of an
// earlier time than before gives for the time between twice.
func TestPaceIsAskedInTheOrderOfItsTimes(t *testing.T) {
	p := newPace(0.001, 1)
	p.now = func() time.Time {
		if p.mu.TryLock() {
			p.mu.Unlock()
			t.Error("another one may ask between this time and its use")
		}
		return time.Now()
	}
	if err := p.wait(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.wait(ctx); !errors.Is(err, errBusy) {
		t.Errorf("the second one within a minute: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := p.wait(ctx); !errors.Is(err, errBusy) {
		t.Errorf("one that does not wait: %v", err)
	}
}

func TestPaceTakesATurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1, 1)
		if err := p.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := p.wait(ctx); !errors.Is(err, errBusy) {
			t.Fatalf("it waited beyond its context: %v", err)
		}
		began := time.Now()
		if err := p.wait(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("the next one's turn came after %v, with %v", time.Since(began), err)
		}
	})
}
