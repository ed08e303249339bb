// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"strings"
	"testing"
	"time"
)

func taken(b *backlog, n int, now time.Time) string {
	var ids []string
	for _, w := range b.take(n, now) {
		ids = append(ids, w.id)
	}
	return strings.Join(ids, " ")
}

func TestUrgentWorkGoesFirstAndCountersKeepTheirShare(t *testing.T) {
	b := newBacklog()
	b.add(false, "c1", "c2", "c3")
	b.add(true, "u1", "u2", "u3", "u4", "u5", "u6", "c3", "u1")
	b.add(false, "u2", "c1")
	if got := taken(b, 20, noon); got != "u1 u2 u3 u4 c1 u5 u6 c3 c2" {
		t.Errorf("took %q", got)
	}
	if all, due := b.len(noon); all != 0 || due != 0 {
		t.Errorf("%d left, %d due", all, due)
	}
}

func TestFailedWorkWaitsLongerEachTime(t *testing.T) {
	b, now := newBacklog(), noon
	b.add(true, "a")
	for _, delay := range []time.Duration{250, 500, 1000, 2000, 4000, 8000, 8000, 8000} {
		delay *= time.Millisecond
		work := b.take(1, now)
		if len(work) != 1 {
			t.Fatalf("nothing to take at %v", now)
		}
		b.retry(work[0], now)
		now = now.Add(delay - 1)
		if all, due := b.len(now); all != 1 || due != 0 {
			t.Fatalf("%d wait, %d due before %v", all, due, delay)
		}
		now = now.Add(1)
	}
	if got := taken(b, 1, now); got != "a" {
		t.Errorf("took %q", got)
	}
}

func TestWorkThatFailedAndCameAgainWaitsAllTheSame(t *testing.T) {
	b := newBacklog()
	b.add(false, "a", "b")
	b.retry(b.take(1, noon)[0], noon)
	b.add(true, "a")
	if got := taken(b, 9, noon); got != "b" {
		t.Errorf("took %q before its time", got)
	}
	b.add(false, "b")
	if got := taken(b, 9, noon.Add(retryAtFirst)); got != "a b" {
		t.Errorf("took %q, want what became urgent first", got)
	}
	if all, due := b.len(noon); all != 0 || due != 0 {
		t.Errorf("%d left, %d due", all, due)
	}
}

func TestWorkThatCameAgainWhileItWasTriedIsListedOnce(t *testing.T) {
	for _, urgent := range []bool{false, true} {
		b := newBacklog()
		b.add(false, "a")
		tried := b.take(1, noon)[0]
		b.add(urgent, "a")
		b.retry(tried, noon)
		if all, due := b.len(noon); all != 1 || due != 0 {
			t.Errorf("%d wait, %d due", all, due)
		}
		if got := b.take(9, noon.Add(retryAtFirst)); len(got) != 1 || got[0].urgent != urgent || got[0].tries != 1 {
			t.Errorf("took %+v", got)
		}
	}
}
