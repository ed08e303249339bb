// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Tokens that are not known yet: how many reviews of them there are in a second, at once, and under way.
	strangersPerSecond = 100
	strangersBurst     = 200
	strangersUnderWay  = 16
	// Of one address, after so many tokens that were no good: how many unknown ones are looked at in a second.
	failuresPerSecond = 1
	failuresBurst     = 20
	// Of one address of which none was no good lately, so many are looked at side by side, which leaves as many turns.
	strangersFromOne = strangersBurst / 2
	// maxAddresses bounds the addresses whose failures are remembered.
	maxAddresses = 4096
)

// strangers bounds the reviews of tokens that are not known. Who keeps showing tokens that are no good uses up their
// own address's share before they use up everybody's.
type strangers struct {
	now      func() time.Time
	all      *pace
	underWay places

	mu        sync.Mutex
	addresses *bounded[netip.Prefix, *address]
}

// address is where unknown tokens come from.
type address struct {
	looking  int           // reviews under way, each of which counts as failed until it is known not to
	failures *rate.Limiter // nil unless one was no good lately
}

func newStrangers(now func() time.Time) *strangers {
	return &strangers{
		now: now, all: newPace(strangersPerSecond, strangersBurst), underWay: make(places, strangersUnderWay),
		addresses: newBounded[netip.Prefix, *address](maxAddresses),
	}
}

// look begins the review of a token of an address; the returned function ends it and is told whether the token was no
// good. It is nil where the address has failed too often lately.
func (s *strangers) look(from netip.Prefix) (end func(failed bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	a := s.address(from, &address{}, now)
	if a.failures != nil && a.failures.TokensAt(now) >= failuresBurst {
		a.failures = nil
	}
	if a.failures == nil && a.looking >= strangersFromOne ||
		a.failures != nil && a.failures.TokensAt(now)-float64(a.looking) < 1 {
		return nil
	}
	a.looking++
	return func(failed bool) { s.looked(from, a, failed) }
}

func (s *strangers) looked(from netip.Prefix, a *address, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.looking--
	now := s.now()
	known := s.address(from, a, now) // another one where a made room for others meanwhile
	if failed {
		if known.failures == nil {
			known.failures = rate.NewLimiter(failuresPerSecond, failuresBurst)
		}
		known.failures.AllowN(now, 1)
	}
	if known.failures == nil && known.looking == 0 {
		s.addresses.remove(from)
	}
}

// address finds what is known of an address, and remembers it as unknown otherwise.
func (s *strangers) address(from netip.Prefix, unknown *address, now time.Time) *address {
	if e := s.addresses.get(from, now); e != nil {
		return e.value
	}
	s.addresses.put(from, &entry[*address]{value: unknown, reviewed: now})
	return unknown
}

// enter waits for a stranger's turn, which the returned function ends. It fails at once where that would take too long.
func (s *strangers) enter(ctx context.Context) (leave func(), err error) {
	if s.all.wait(ctx) != nil {
		return nil, errBusy
	}
	return s.underWay.take(ctx)
}

// addressOf is where a request comes from: of IPv6 the network, of which everybody has plenty of addresses.
func addressOf(r *http.Request) netip.Prefix {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	address := from.Addr().Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	network, _ := address.Prefix(bits)
	return network
}
