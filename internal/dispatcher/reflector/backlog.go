// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"container/list"
	"sync"
	"time"
)

const (
	// countersShare is how often a place goes to counters although urgent work waits: one in so many.
	countersShare = 5
	retryAtFirst  = 250 * time.Millisecond
	maxDoublings  = 5
	retryAtMost   = 8 * time.Second
)

// work is a subscription whose status may have to be written.
type work struct {
	id     string
	urgent bool
	tries  int       // that failed
	notBy  time.Time // no try before
}

// backlog lists what waits to be written, urgent work first and what waits longest first, each subscription once.
// Counters have their share, so that a stream of urgent work cannot starve them. It may be used from any goroutine.
type backlog struct {
	mu       sync.Mutex
	places   map[string]*list.Element // of *work, in one of the lists
	urgent   *list.List
	counters *list.List
	delayed  map[string]*work // after a failure, not in a list
	taken    int
	wake     chan struct{} // holds one token once there is something new
}

func newBacklog() *backlog {
	return &backlog{
		places: map[string]*list.Element{}, urgent: list.New(), counters: list.New(), delayed: map[string]*work{},
		wake: make(chan struct{}, 1),
	}
}

// add lists subscriptions. One that is listed keeps its place, unless it became urgent; one that is delayed stays so.
func (b *backlog) add(urgent bool, ids ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if late := b.delayed[id]; late != nil {
			late.urgent = late.urgent || urgent
			continue
		}
		b.place(&work{id: id, urgent: urgent})
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *backlog) place(w *work) {
	if at, ok := b.places[w.id]; ok {
		listed, _ := at.Value.(*work)
		if !w.urgent || listed.urgent {
			return
		}
		b.unlist(at, listed)
	}
	if w.urgent {
		b.places[w.id] = b.urgent.PushBack(w)
	} else {
		b.places[w.id] = b.counters.PushBack(w)
	}
}

// retry lists work again that failed, after a delay that doubles each time.
func (b *backlog) retry(w *work, now time.Time) {
	w.notBy = now.Add(min(retryAtFirst<<min(w.tries, maxDoublings), retryAtMost))
	w.tries++
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.places[w.id]; ok { // it was listed again meanwhile
		again, _ := at.Value.(*work)
		w.urgent = w.urgent || again.urgent
		b.unlist(at, again)
	}
	b.delayed[w.id] = w
}

func (b *backlog) unlist(at *list.Element, w *work) {
	delete(b.places, w.id)
	if w.urgent {
		b.urgent.Remove(at)
		return
	}
	b.counters.Remove(at)
}

// take hands over up to n pieces of work that may be tried now.
func (b *backlog) take(n int, now time.Time) []*work {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resume(now)
	var out []*work
	for len(out) < n && b.urgent.Len()+b.counters.Len() > 0 {
		from := b.urgent
		if from.Len() == 0 || b.taken%countersShare == countersShare-1 && b.counters.Len() > 0 {
			from = b.counters
		}
		w, _ := from.Remove(from.Front()).(*work)
		delete(b.places, w.id)
		b.taken++
		out = append(out, w)
	}
	return out
}

// resume lists what was delayed long enough.
func (b *backlog) resume(now time.Time) {
	for id, w := range b.delayed {
		if !now.Before(w.notBy) {
			delete(b.delayed, id)
			b.place(w)
		}
	}
}

// len is how much waits, delayed work included; due is how much may be tried now.
func (b *backlog) len(now time.Time) (all, due int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resume(now)
	due = b.urgent.Len() + b.counters.Len()
	return due + len(b.delayed), due
}
