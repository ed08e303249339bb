// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A flood of tokens costs the API server a bounded number of reviews, us bounded memory, and neither those who are known
// nor strangers from elsewhere their service.
func TestAFloodOfTokens(t *testing.T) {
	const flood = 20_000
	b := newBench(t, func(o *Options) { o.Most = 160 })
	b.grant("ci", mayPublish)
	known, newcomer := b.token("ci"), b.token("ci")
	eventually(t, "the token is good", func() bool { return b.status(known, publish) == 200 })
	before, started := b.requests.Load(), time.Now()
	refusals := map[int]int{}
	for i := range flood {
		_, problem := b.Authenticate(request(fmt.Sprintf("flood-%d", i)))
		refusals[problem.Status]++
		if i%1000 == 0 {
			b.expect("the known caller", known, 200)
		}
	}
	most := failuresBurst + int64(time.Since(started).Seconds()+2)*(failuresPerSecond+2) // 2: the known caller's renewals
	if n := b.requests.Load() - before; n > most {
		t.Errorf("%d tokens cost %d reviews, want at most %d", flood, n, most)
	}
	if refusals[http.StatusTooManyRequests] < flood-int(most) || refusals[http.StatusUnauthorized] == 0 {
		t.Errorf("refusals: %v", refusals)
	}
	r := request(newcomer)
	r.RemoteAddr = "198.51.100.7:4711"
	if _, problem := b.Authenticate(r); problem != nil {
		t.Errorf("a stranger from elsewhere: %d %s", problem.Status, problem.Detail)
	}
	if yes, no := b.tokens.yes.len(), b.tokens.no.len(); yes > 160 || no > 160 {
		t.Errorf("%d good and %d bad tokens are remembered", yes, no)
	}
	if n := b.strangers.addresses.len(); n > maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
}

// The same all at once, from an address that failed before and from one that did not: reviews under way count as what
// they may come to. Who hangs up before the answer gains nothing.
func TestAFloodOfTokensAtOnce(t *testing.T) {
	const flood = 500
	still := time.Now()
	for name, c := range map[string]struct {
		before int // tokens shown before
		hangUp time.Duration
		least  int64
		most   int64
	}{
		"at first":              {0, 0, failuresBurst, strangersFromOne},
		"behind a bad one":      {1, 0, failuresBurst - 1, failuresBurst - 1},
		"behind one, hangs up":  {1, time.Millisecond, failuresBurst - 1, failuresBurst - 1},
		"at first, and hang up": {0, time.Millisecond, failuresBurst, strangersFromOne},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(o *Options) { o.Now = func() time.Time { return still } })
			for i := range c.before {
				if _, problem := b.Authenticate(request(fmt.Sprint("before-", i))); problem == nil || problem.Status != 401 {
					t.Fatalf("a bad token: %v", problem)
				}
			}
			before := b.requests.Load()
			for round := range 3 {
				var running sync.WaitGroup
				for i := range flood {
					running.Go(func() {
						r := request(fmt.Sprintf("flood-%d-%d", round, i))
						if c.hangUp > 0 {
							ctx, cancel := context.WithTimeout(r.Context(), c.hangUp)
							defer cancel()
							r = r.WithContext(ctx)
						}
						if _, problem := b.Authenticate(r); problem == nil {
							t.Error("a token of the flood is good")
						}
					})
				}
				running.Wait()
				eventually(t, "the reviews have ended", func() bool {
					b.strangers.mu.Lock()
					defer b.strangers.mu.Unlock()
					return b.strangers.address(addressOf(request("")), &address{}, still).looking == 0
				})
			}
			if n := b.requests.Load() - before; n < c.least || n > c.most {
				t.Errorf("%d tokens cost %d reviews, want %d to %d", 3*flood, n, c.least, c.most)
			}
		})
	}
}

// Good tokens take nothing of what an address may fail, and one that comes many times at once is one.
func TestGoodTokensBehindABadOne(t *testing.T) {
	still := time.Now()
	b := newBench(t, func(o *Options) { o.Now = func() time.Time { return still } })
	b.grant("ci", mayPublish)
	if _, problem := b.Authenticate(request("bad")); problem == nil {
		t.Fatal("a bad token is good")
	}
	token, before := b.token("ci"), b.requests.Load()
	var running sync.WaitGroup
	for range 5 * failuresBurst {
		running.Go(func() {
			if _, problem := b.Authenticate(request(token)); problem != nil {
				t.Errorf("a good token: %d %s", problem.Status, problem.Detail)
			}
		})
	}
	running.Wait()
	if n := b.requests.Load() - before; n != 1 {
		t.Errorf("one token cost %d reviews", n)
	}
	from := netip.MustParsePrefix("192.0.2.1/32")
	for range 10 * failuresBurst {
		end := b.strangers.look(from)
		if end == nil {
			t.Fatal("refused behind good ones")
		}
		end(false)
	}
	end := b.strangers.look(netip.MustParsePrefix("192.0.2.2/32"))
	end(false)
	if n := b.strangers.addresses.len(); n != 1 {
		t.Errorf("%d addresses are remembered, want the one that failed", n)
	}
}

// The same from as many addresses as there are tokens: then what everybody shares is the bound.
func TestAFloodOfTokensFromEverywhere(t *testing.T) {
	const flood = 2000
	b := newBench(t, func(o *Options) { o.Most = 160 })
	b.grant("ci", mayPublish)
	known := b.token("ci")
	eventually(t, "the token is good", func() bool { return b.status(known, publish) == 200 })
	before, started := b.requests.Load(), time.Now()
	var running sync.WaitGroup
	for i := range flood {
		running.Go(func() {
			r := request(fmt.Sprintf("flood-%d", i))
			r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:4711", i/256, i%256)
			if _, problem := b.Authenticate(r); problem == nil {
				t.Error("a token of the flood is good")
			}
		})
	}
	b.expect("the known caller", known, 200)
	running.Wait()
	most := int64(strangersBurst + strangersPerSecond*(time.Since(started).Seconds()+1))
	if n := b.requests.Load() - before; n > most {
		t.Errorf("%d tokens cost %d reviews, want at most %d", flood, n, most)
	}
	if n := b.count("nexus_webhook_access_reviews_total", outcomeLimited, reviewToken); n == 0 {
		t.Error("none was held off")
	}
	b.expect("the known caller", known, 200)
}

// An address is like any other again once its failures are as long ago as it takes to earn them anew.
func TestAnAddressIsForgiven(t *testing.T) {
	now := time.Now()
	s := newStrangers(func() time.Time { return now })
	from := netip.MustParsePrefix("192.0.2.1/32")
	sideBySide := func() (n int) {
		var ends []func(bool)
		for end := s.look(from); end != nil; end = s.look(from) {
			ends = append(ends, end)
		}
		for _, end := range ends {
			end(false)
		}
		return len(ends)
	}
	s.look(from)(true)
	if n := sideBySide(); n != failuresBurst-1 {
		t.Errorf("%d side by side behind a bad one, want %d", n, failuresBurst-1)
	}
	now = now.Add(time.Second / failuresPerSecond)
	if n := sideBySide(); n != strangersFromOne {
		t.Errorf("%d side by side once it is over, want %d", n, strangersFromOne)
	}
	if n := s.addresses.len(); n != 0 {
		t.Errorf("%d addresses are remembered", n)
	}
}
