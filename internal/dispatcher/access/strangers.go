// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"net/http"
	"net/netip"
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
	now       func() time.Time
	all       *pace
	underWay  places
	addresses *bounded[netip.Prefix, *rate.Limiter]
}

func newStrangers(now func() time.Time) *strangers {
	return &strangers{
		now: now, all: newPace(strangersPerSecond, strangersBurst), underWay: make(places, strangersUnderWay),
		addresses: newBounded[netip.Prefix, *rate.Limiter](maxAddresses),
	}
}

// mayTry tells whether an address has not failed too often lately.
func (s *strangers) mayTry(from netip.Prefix) bool {
	now := s.now()
	e := s.addresses.get(from, now)
	return e == nil || e.value.TokensAt(now) >= 1
}

// failed counts a token that was no good.
func (s *strangers) failed(from netip.Prefix) {
	now := s.now()
	e := s.addresses.get(from, now)
	if e == nil {
		e = &entry[*rate.Limiter]{value: rate.NewLimiter(failuresPerSecond, failuresBurst), reviewed: now}
		s.addresses.put(from, e)
	}
	e.value.AllowN(now, 1)
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
