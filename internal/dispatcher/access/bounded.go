// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shards = 16
	// sample is how many entries are looked at for the one to give up.
	sample = 8
)

// bounded is a map for many readers at once that holds so many entries and no more. Where it is full, an entry that was
// not asked for lately makes room: of a few, the one that waited longest.
type bounded[K comparable, V any] struct {
	seed   maphash.Seed
	shards [shards]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu      sync.RWMutex
	most    int
	entries map[K]*entry[V]
}

// entry is what a review found.
type entry[V any] struct {
	value    V
	reviewed time.Time
	ends     time.Time    // it holds before this only
	used     atomic.Int64 // when it was last asked for: Unix time in seconds
	next     atomic.Int64 // when it may be renewed again: Unix time in nanoseconds
}

// forever is when an entry ends that has no end.
var forever = time.Unix(math.MaxInt32, 0).AddDate(1000, 0, 0)

// newBounded makes a map of about that many entries: each shard holds its share and no more.
func newBounded[K comparable, V any](most int) *bounded[K, V] {
	b := &bounded[K, V]{seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].most, b.shards[i].entries = max(1, most/shards), map[K]*entry[V]{}
	}
	return b
}

func (b *bounded[K, V]) shard(k K) *shard[K, V] {
	return &b.shards[maphash.Comparable(b.seed, k)%shards]
}

// get finds an entry, nil if there is none, and marks it as used.
func (b *bounded[K, V]) get(k K, now time.Time) *entry[V] {
	s := b.shard(k)
	s.mu.RLock()
	e := s.entries[k]
	s.mu.RUnlock()
	if e == nil {
		return nil
	}
	if t := now.Unix(); e.used.Load() != t { // a write would take the line from the other readers
		e.used.Store(t)
	}
	return e
}

func (b *bounded[K, V]) put(k K, e *entry[V]) {
	e.used.Store(e.reviewed.Unix())
	s := b.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.entries[k]; !there && len(s.entries) >= s.most {
		s.makeRoom()
	}
	s.entries[k] = e
}

// makeRoom drops one entry. A map begins its walk anywhere.
func (s *shard[K, V]) makeRoom() {
	var oldest K
	least, looked := int64(math.MaxInt64), 0
	for k, e := range s.entries {
		if used := e.used.Load(); used < least {
			oldest, least = k, used
		}
		if looked++; looked == sample {
			break
		}
	}
	delete(s.entries, oldest)
}

func (b *bounded[K, V]) remove(k K) {
	s := b.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, k)
}

func (b *bounded[K, V]) len() int {
	n := 0
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
