// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"testing"
	"time"

	"nexus.io/webhooks/internal/event"
)

// costs measures an operation: its time in the fastest of some rounds, since neighbours on the machine and the garbage
// collector only add to it, and its allocations.
func costs(operation func()) (took time.Duration, allocations float64) {
	const rounds, each = 12, 8
	took = time.Hour
	for start, n := time.Now(), 0; n < rounds && time.Since(start) < time.Second; n++ { // what is slow shows at once
		began := time.Now()
		for range each {
			operation()
		}
		took = min(took, time.Since(began)/each)
	}
	return took, testing.AllocsPerRun(each, operation)
}

// A thousand times as many routes may cost some levels of a tree and misses of a cache, and nothing in proportion.
func TestCostsFollowWhatMatchesAndWhatChanges(t *testing.T) {
	const few, many = 100, 100_000
	const timeFactor, allocationFactor = 20, 8 // a walk over all of them costs hundreds of times as much
	small, large := Empty().With(manyRoutes(few), nil), Empty().With(manyRoutes(many), nil)
	wanted := event.Attributes{Project: "p0", Team: "platform", Severity: "high"}
	tests := map[string]func(table *Table, routes int) func(){
		"a match": func(table *Table, _ int) func() {
			return func() {
				if n := len(table.Match("build.completed", wanted)); n != 10 {
					t.Fatalf("%d routes match, want 10", n)
				}
			}
		},
		"no match": func(table *Table, _ int) func() {
			return func() {
				if n := len(table.Match("build.completed", event.Attributes{Project: "no"})); n != 0 {
					t.Fatalf("%d routes match, want none", n)
				}
			}
		},
		"a change": func(table *Table, routes int) func() {
			changed := []*Route{manyRoute(routes / 2)}
			return func() { table = table.With(changed, nil) }
		},
		"a removal": func(table *Table, routes int) func() {
			gone := []string{manyRoute(routes / 2).ID}
			return func() { _ = table.With(nil, gone) }
		},
		"a route by its ID": func(table *Table, routes int) func() {
			id := manyRoute(routes / 2).ID
			return func() {
				if table.Route(id) == nil {
					t.Fatal("the route is not there")
				}
			}
		},
	}
	for name, operation := range tests {
		t.Run(name, func(t *testing.T) {
			fewTook, fewAllocations := costs(operation(small, few))
			manyTook, manyAllocations := costs(operation(large, many))
			if manyTook > timeFactor*max(fewTook, time.Microsecond) || manyAllocations > allocationFactor*max(fewAllocations, 1) {
				t.Errorf("of %d routes: %v, %.0f allocations; of %d: %v, %.0f",
					few, fewTook, fewAllocations, many, manyTook, manyAllocations)
			}
		})
	}
}
