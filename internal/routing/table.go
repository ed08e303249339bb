// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"cmp"
	"iter"
	"sync"

	"github.com/tidwall/btree"

	"nexus.io/webhooks/internal/event"
)

// Table holds the routes. It never changes, so that any number of goroutines may read it without a lock; With makes
// another one that shares what is the same.
type Table struct {
	routes *btree.BTreeG[*Route]    // by ID
	index  *btree.BTreeG[entry]     // active routes, by what they ask for
	usage  *btree.BTreeG[usage]     // how many active routes and entries use a pattern
	active int                      // routes
	hash   func(text string) uint64 // of the parts of an index key

	// forking is held while the trees are forked, which writes a mark into the tree that is forked. Readers do not read
	// that mark, other forks do.
	forking sync.Mutex
}

// Empty is a table without routes.
func Empty() *Table {
	return newTable(hashText)
}

func newTable(hash func(string) uint64) *Table {
	unlocked := btree.Options{NoLocks: true}
	return &Table{
		routes: btree.NewBTreeGOptions(func(a, b *Route) bool { return a.ID < b.ID }, unlocked),
		index:  btree.NewBTreeGOptions(entryLess, unlocked),
		usage:  btree.NewBTreeGOptions(func(a, b usage) bool { return a.pattern < b.pattern }, unlocked),
		hash:   hash,
	}
}

// With makes a table in which the routes of removedIDs are gone and the upserts are there, in place of those of the
// same ID. It costs the number of changes × log of the number of routes. The table itself stays as it is. The upserts
// belong to the new table: do not change them afterwards.
func (t *Table) With(upserts []*Route, removedIDs []string) *Table {
	next := t.fork()
	for _, id := range removedIDs {
		next.remove(id)
	}
	for _, r := range upserts {
		next.remove(r.ID)
		next.add(r)
	}
	return next
}

func (t *Table) fork() *Table {
	t.forking.Lock()
	defer t.forking.Unlock()
	return &Table{
		routes: t.routes.IsoCopy(), index: t.index.IsoCopy(), usage: t.usage.IsoCopy(), active: t.active, hash: t.hash,
	}
}

func (t *Table) add(r *Route) {
	t.routes.Set(r)
	if !r.Active {
		return
	}
	for e := range t.entries(r) {
		t.index.Set(e)
	}
	t.active++
	t.count(r, 1)
}

func (t *Table) remove(id string) {
	r, ok := t.routes.Delete(&Route{ID: id})
	if !ok || !r.Active {
		return
	}
	for e := range t.entries(r) {
		t.index.Delete(e)
	}
	t.active--
	t.count(r, -1)
}

// count adds n times the route to the usage of its patterns.
func (t *Table) count(r *Route, n int) {
	projects, teams := r.wanted()
	shape := shapeOf(projects, teams, r.Filter.Severities)
	perPattern := len(projects) * len(teams) * max(1, len(r.Filter.Severities))
	for _, pattern := range r.Events {
		u, _ := t.usage.Get(usage{pattern: pattern})
		u.pattern = pattern
		u.routes += n
		u.entries[shape] += n * perPattern
		if u.routes == 0 {
			t.usage.Delete(u)
			continue
		}
		t.usage.Set(u)
	}
}

// Match finds the active routes that want an event of this type with these attributes, each once, in no particular
// order. At most 3 patterns × 8 shapes of a filter are looked up; each entry found there is a match, but for routes
// whose Namespace grants more than maxExpanded things.
func (t *Table) Match(eventType string, a event.Attributes) []*Route {
	var found []*Route
	for _, pattern := range patternsOf(eventType) {
		u, ok := t.usage.Get(usage{pattern: pattern})
		if !ok {
			continue
		}
		for s := shape(0); s < shapes; s++ {
			if wanted, ok := s.key(pattern, a); ok && u.entries[s] > 0 {
				found = t.collect(found, wanted, a)
			}
		}
	}
	return found
}

// collect appends the routes that ask for exactly this. Entries of another key can lie between them only if its hash
// is the same.
func (t *Table) collect(found []*Route, wanted key, a event.Attributes) []*Route {
	sum := wanted.hash(t.hash)
	t.index.Ascend(entry{sum: sum, route: before}, func(e entry) bool {
		if e.sum != sum {
			return false
		}
		if e.key == wanted && e.route.Grant.Refuses(a) == "" {
			found = append(found, e.route)
		}
		return true
	})
	return found
}

// Route finds a route by its ID, active or not, nil if there is none.
func (t *Table) Route(id string) *Route {
	r, _ := t.routes.Get(&Route{ID: id})
	return r
}

// Len is the number of routes, active or not.
func (t *Table) Len() int {
	return t.routes.Len()
}

// Active is the number of active routes.
func (t *Table) Active() int { return t.active }

// All lists the routes by ID, active or not.
func (t *Table) All() iter.Seq[*Route] {
	return t.After("")
}

// After lists the routes whose ID is greater than this one, by ID, so that a long walk can pause.
func (t *Table) After(id string) iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		t.routes.Ascend(&Route{ID: id}, func(r *Route) bool { return r.ID == id || yield(r) })
	}
}

// CountByType is the number of active routes whose events hold the type, whatever their filters.
func (t *Table) CountByType(eventType string) int {
	n := 0
	for _, pattern := range patternsOf(eventType) {
		u, _ := t.usage.Get(usage{pattern: pattern})
		n += u.routes
	}
	return n
}

// usage counts what a pattern is used for, so that a match looks up only what is there.
type usage struct {
	pattern string
	routes  int
	entries [shapes]int
}

// entry is one thing that an active route asks for: a route has one per pattern, severity, and thing that its Namespace
// grants.
type entry struct {
	sum   uint64 // hash of the key: the order of the index, cheap to compare
	route *Route
	key
}

// before comes before every route in the order of the index.
var before = &Route{}

func entryLess(a, b entry) bool {
	if a.sum != b.sum {
		return a.sum < b.sum
	}
	return cmp.Or(cmp.Compare(a.route.ID, b.route.ID), cmp.Compare(a.pattern, b.pattern),
		cmp.Compare(a.severity, b.severity), cmp.Compare(a.project, b.project), cmp.Compare(a.team, b.team)) < 0
}

// entries lists what a route asks for.
func (t *Table) entries(r *Route) iter.Seq[entry] {
	severities := r.Filter.Severities
	if len(severities) == 0 {
		severities = anything
	}
	projects, teams := r.wanted()
	return func(yield func(entry) bool) {
		for _, pattern := range r.Events {
			for _, severity := range severities {
				for k := range pairs(projects, teams) {
					k.pattern, k.severity = pattern, severity
					if !yield(entry{k.hash(t.hash), r, k}) {
						return
					}
				}
			}
		}
	}
}

// pairs lists every project with every team.
func pairs(projects, teams []string) iter.Seq[key] {
	return func(yield func(key) bool) {
		for _, project := range projects {
			for _, team := range teams {
				if !yield(key{project: project, team: team}) {
					return
				}
			}
		}
	}
}
