// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"math"
	"testing"
	"time"

	"nexus.io/webhooks/internal/routing"
)

var briefRetry = routing.Retry{MaxRetries: 5, InitialDelay: 5 * time.Second, MaxDelay: time.Hour}

func TestBackoffIsTheDocumentedSchedule(t *testing.T) {
	want := []time.Duration{0, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600}
	for failures, seconds := range want {
		if got := Backoff(briefRetry, failures, 0); got != seconds*time.Second {
			t.Errorf("after %d failures %v, want %v", failures, got, seconds*time.Second)
		}
	}
}

func TestBackoffAtItsEdges(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	cases := map[string]struct {
		retry    routing.Retry
		failures int
		jitter   float64
		want     time.Duration
	}{
		"full jitter is a tenth":           {briefRetry, 1, 1, 5500 * time.Millisecond},
		"half of it":                       {briefRetry, 2, 0.5, 10500 * time.Millisecond},
		"jitter on top of the maximum":     {briefRetry, 100, 1, 66 * time.Minute},
		"negative jitter shortens nothing": {briefRetry, 1, -5, 5 * time.Second},
		"no failure":                       {briefRetry, 0, 1, 0},
		"fewer than none":                  {briefRetry, -3, 1, 0},
		"as many failures as an int holds": {briefRetry, math.MaxInt, 0, time.Hour},
		"the longest duration":             {routing.Retry{InitialDelay: 1, MaxDelay: longest}, math.MaxInt, 1, longest},
		"a maximum below the initial":      {routing.Retry{InitialDelay: time.Hour, MaxDelay: time.Minute}, 1, 0, time.Minute},
		"a maximum that is no multiple":    {routing.Retry{InitialDelay: 5, MaxDelay: 17}, 3, 0, 17},
		"no delay at all":                  {routing.Retry{}, math.MaxInt, 1, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Backoff(c.retry, c.failures, c.jitter); got != c.want {
				t.Errorf("Backoff = %v, want %v", got, c.want)
			}
		})
	}
}

// The rate limit holds by the endpoint's clock: a request is charged when it has surely come.
func TestARequestIsChargedOnceItHasArrived(t *testing.T) {
	cases := map[string]struct{ sentAgo, arrivedAgo time.Duration }{
		"nothing was sent":     {0, 0},
		"answered at once":     {time.Millisecond, 0},
		"answered in time":     {time.Second, 0},
		"answered late":        {30 * time.Second, 29 * time.Second},
		"longer than a window": {2 * time.Minute, 119 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := settlementOf(testLease(1), briefRetry, Exchange{StatusCode: 200, Sent: true, SentAgo: c.sentAgo}, 0)
			if s.ArrivedAgo != c.arrivedAgo {
				t.Errorf("written %v ago it counts as arrived %v ago, want %v", c.sentAgo, s.ArrivedAgo, c.arrivedAgo)
			}
		})
	}
}

func FuzzBackoffStaysInItsBounds(f *testing.F) {
	f.Add(int64(5e9), int64(36e11), 3, 0.5)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), 64, 1.0)
	f.Fuzz(func(t *testing.T, initial, most int64, failures int, jitter float64) {
		if initial < 0 || most < initial || failures < 1 || failures > 1000 {
			return
		}
		retry := routing.Retry{InitialDelay: time.Duration(initial), MaxDelay: time.Duration(most)}
		base := Backoff(retry, failures, 0)
		if base < retry.InitialDelay || base > retry.MaxDelay {
			t.Fatalf("%v is not in %v to %v", base, retry.InitialDelay, retry.MaxDelay)
		}
		if base < Backoff(retry, failures-1, 0) {
			t.Fatalf("the delay shrinks at failure %d", failures)
		}
		with := Backoff(retry, failures, jitter)
		if with < base || float64(with) > float64(base)*1.1000001 {
			t.Fatalf("jitter %v makes %v of %v", jitter, with, base)
		}
	})
}

func TestJitterIsSpreadAndStable(t *testing.T) {
	var low, high int
	for i := range 1000 {
		id := time.Duration(i).String()
		j := jitterOf(id)
		if j < 0 || j >= 1 || j != jitterOf(id) {
			t.Fatalf("jitter %v of %s", j, id)
		}
		if j < 0.5 {
			low++
		} else {
			high++
		}
	}
	if low < 400 || high < 400 {
		t.Errorf("%d below a half and %d above of 1000", low, high)
	}
}
