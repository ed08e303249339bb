// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import "sync"

// pending gathers what changed until the worker gets to it; what changes twice meanwhile is one change.
type pending struct {
	mu       sync.Mutex
	gathered batch
	wake     chan struct{} // holds one token while there is something
}

// batch is what the worker takes at once.
type batch struct {
	touched map[key]bool        // subscriptions; true: configure again, even if nothing changed
	deleted map[string]deletion // subscriptions that are gone, by UID
	sources map[key]bool        // Secrets and ConfigMaps
}

// deletion of a subscription. Without certainty its route leaves the table and what waits for it is kept.
type deletion struct {
	at      key
	certain bool
}

func newBatch() batch {
	return batch{touched: map[key]bool{}, deleted: map[string]deletion{}, sources: map[key]bool{}}
}

func (b batch) touch(k key, again bool) {
	b.touched[k] = b.touched[k] || again
}

func (b batch) delete(uid string, d deletion) {
	d.certain = d.certain || b.deleted[uid].certain
	b.deleted[uid] = d
}

func newPending() *pending {
	return &pending{gathered: newBatch(), wake: make(chan struct{}, 1)}
}

// touch marks a subscription that may have changed.
func (p *pending) touch(k key) {
	p.change(func(b batch) { b.touch(k, false) })
}

// reconfigure marks a subscription that the queue does not know.
func (p *pending) reconfigure(k key) {
	p.change(func(b batch) { b.touch(k, true) })
}

// delete marks a subscription that was seen being deleted.
func (p *pending) delete(k key, uid string) {
	p.change(func(b batch) { b.delete(uid, deletion{k, true}) })
}

// forget marks a subscription that is not there and that nobody saw being deleted.
func (p *pending) forget(k key, uid string) {
	p.change(func(b batch) { b.delete(uid, deletion{k, false}) })
}

// touchSource marks a Secret or ConfigMap that may have changed: of either, what bears the name.
func (p *pending) touchSource(k key) {
	p.change(func(b batch) { b.sources[k] = true })
}

// putBack marks again the subscriptions that the worker could not get done.
func (p *pending) putBack(touched map[key]bool) {
	p.change(func(b batch) {
		for k, again := range touched {
			b.touch(k, again)
		}
	})
}

func (p *pending) change(f func(batch)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.gathered)
	p.signal()
}

func (p *pending) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take hands over all deletions, and up to n subscriptions and n sources. What is left wakes again.
func (p *pending) take(n int) batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := newBatch()
	b.touched, b.sources = some(p.gathered.touched, n), some(p.gathered.sources, n)
	b.deleted, p.gathered.deleted = p.gathered.deleted, b.deleted
	if len(p.gathered.touched)+len(p.gathered.sources) > 0 {
		p.signal()
	}
	return b
}

// some moves up to n entries out of a map.
func some(from map[key]bool, n int) map[key]bool {
	taken := make(map[key]bool, min(n, len(from)))
	for k, v := range from {
		if len(taken) == n {
			break
		}
		taken[k] = v
		delete(from, k)
	}
	return taken
}

// len is the number of subscriptions that wait.
func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.gathered.touched) + len(p.gathered.deleted)
}
