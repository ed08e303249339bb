// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// reviewTimeout bounds a review, from waiting for its turn to its answer.
	reviewTimeout = 3 * time.Second
	// renewAgain is how long a renewal that failed is not tried again, for each answer.
	renewAgain = time.Second
)

var (
	errRefused = errors.New("the review says no")
	// errAway is trouble with the Kubernetes API: for those who were known before, the last answer still counts.
	errAway = errors.New("the Kubernetes API cannot be asked")
	// errBusy is a review that was not made, since too many others were wanted.
	errBusy = errors.New("too many reviews at once")
)

// times is how long answers count.
type times struct {
	fresh   time.Duration // a yes, without another look
	refused time.Duration // a no
	outage  time.Duration // a yes, while the Kubernetes API is away
}

// key tells questions apart; flight is the same as text.
type key interface {
	comparable
	flight() string
}

// review asks the Kubernetes API. The answer is a value that holds until ends, errRefused, or an error that wraps
// errAway or errBusy.
type review[V any] func(ctx context.Context) (value V, ends time.Time, err error)

// memory remembers what reviews said. Yes and no have room of their own, so that no flood of strangers drives out those
// who are known.
type memory[K key, V any] struct {
	times
	now     func() time.Time
	stale   func() // is called for each answer that counts only since the Kubernetes API is away
	yes     *bounded[K, V]
	no      *bounded[K, struct{}]
	flights singleflight.Group
	away    atomic.Bool // the last review found the Kubernetes API away
}

func newMemory[K key, V any](t times, most int, now func() time.Time, stale func()) *memory[K, V] {
	return &memory[K, V]{
		times: t, now: now, stale: stale, yes: newBounded[K, V](most), no: newBounded[K, struct{}](most),
	}
}

type verdict int

const (
	unsettled verdict = iota // nothing is known that counts
	refused
	allowed
	allowedDue // allowed, and whoever is told so must renew it
)

// recall is what is remembered. It never waits, and makes no garbage.
func (m *memory[K, V]) recall(k K) (V, verdict) {
	var none V
	now := m.now()
	if e := m.yes.get(k, now); e != nil && now.Before(e.ends) {
		age := now.Sub(e.reviewed)
		old := age >= m.fresh
		switch {
		case old && (age >= m.outage || !m.away.Load()):
			return none, unsettled
		case old:
			m.stale()
		}
		if age >= m.fresh/5*4 && e.claim(now) {
			return e.value, allowedDue
		}
		return e.value, allowed
	}
	if e := m.no.get(k, now); e != nil && now.Sub(e.reviewed) < m.refused {
		return none, refused
	}
	return none, unsettled
}

// claim makes sure that one of many renews an entry, and not all the time.
func (e *entry[V]) claim(now time.Time) bool {
	next := e.next.Load()
	return now.UnixNano() >= next && e.next.CompareAndSwap(next, now.Add(renewAgain).UnixNano())
}

// isKnown tells whether the last review of this said yes, however long ago.
func (m *memory[K, V]) isKnown(k K) bool {
	return m.yes.get(k, m.now()) != nil
}

// renew asks again, without waiting for the answer.
func (m *memory[K, V]) renew(k K, ask review[V]) {
	m.flights.DoChan(k.flight(), func() (any, error) { return m.review(k, ask) })
}

// recallOld is the last answer, as long as it counts while the Kubernetes API is away, or else err.
func (m *memory[K, V]) recallOld(k K, err error) (V, error) {
	var none V
	now := m.now()
	if e := m.yes.get(k, now); e != nil && now.Before(e.ends) && now.Sub(e.reviewed) < m.outage {
		m.stale()
		return e.value, nil
	}
	if e := m.no.get(k, now); e != nil && now.Sub(e.reviewed) < m.outage {
		return none, errRefused
	}
	return none, err
}

// ask waits for a review, which all who ask the same at the same time share. While the Kubernetes API is away, an
// earlier answer counts on.
func (m *memory[K, V]) ask(ctx context.Context, k K, ask review[V]) (V, error) {
	var none V
	select {
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", errBusy, ctx.Err())
	case found := <-m.flights.DoChan(k.flight(), func() (any, error) { return m.review(k, ask) }):
		value, _ := found.Val.(V)
		if !errors.Is(found.Err, errAway) {
			return value, found.Err
		}
		return m.recallOld(k, found.Err)
	}
}

// review asks and remembers. It goes on when the request that began it ends, for the others who wait.
func (m *memory[K, V]) review(k K, ask review[V]) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	asked := m.now() // before the answer: what changes meanwhile is found when it is due from here
	value, ends, err := ask(ctx)
	switch {
	case errors.Is(err, errBusy):
		return nil, err
	case err == nil:
		m.no.remove(k)
		m.yes.put(k, &entry[V]{value: value, reviewed: asked, ends: ends})
	case errors.Is(err, errRefused):
		m.yes.remove(k)
		m.no.put(k, &entry[struct{}]{reviewed: asked})
	default:
		m.away.Store(true)
		return nil, err
	}
	m.away.Store(false)
	return value, err
}
