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
	addresses *bounded[netip.Prefix, *suspect]
}

// suspect is an address from which a token came that was no good.
type suspect struct {
	failures *rate.Limiter
	looking  int // reviews under way: each counts as failed until it is known not to
}

func newStrangers(now func() time.Time) *strangers {
	return &strangers{
		now: now, all: newPace(strangersPerSecond, strangersBurst), underWay: make(places, strangersUnderWay),
		addresses: newBounded[netip.Prefix, *suspect](maxAddresses),
	}
}

// look begins to look at a token of an address; the returned function says at its end whether it was no good. It is nil
// where the address has failed too often lately.
func (s *strangers) look(from netip.Prefix) (end func(failed bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	e := s.addresses.get(from, now)
	if e == nil {
		return func(failed bool) { s.looked(from, nil, failed) }
	}
	if e.value.failures.TokensAt(now)-float64(e.value.looking) < 1 {
		return nil
	}
	e.value.looking++
	return func(failed bool) { s.looked(from, e.value, failed) }
}

// looked ends the look at a token of an address that was under suspicion at its beginning, or nil.
func (s *strangers) looked(from netip.Prefix, before *suspect, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before != nil {
		before.looking--
	}
	if !failed {
		return
	}
	now := s.now()
	e := s.addresses.get(from, now)
	if e == nil {
		e = &entry[*suspect]{value: &suspect{failures: rate.NewLimiter(failuresPerSecond, failuresBurst)}, reviewed: now}
		s.addresses.put(from, e)
	}
	e.value.failures.AllowN(now, 1)
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
