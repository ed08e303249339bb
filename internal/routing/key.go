// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"hash/maphash"

	"nexus.io/webhooks/internal/event"
)

// shape says which parts of a filter are set, one bit each.
type shape uint8

const (
	byProject shape = 1 << iota
	byTeam
	bySeverity

	shapes = 1 << iota // how many there are
)

// shapeOf tells it of what a route is found under, "" being anything.
func shapeOf(projects, teams, severities []string) shape {
	var s shape
	if len(projects) > 0 && projects[0] != "" {
		s |= byProject
	}
	if len(teams) > 0 && teams[0] != "" {
		s |= byTeam
	}
	if len(severities) > 0 {
		s |= bySeverity
	}
	return s
}

// key is what an entry of the index asks for, and what a match looks for. A part that is empty is not filtered by.
type key struct{ pattern, project, team, severity string }

// key is what a filter of this shape must say to let an event with these attributes pass, and whether one can: an event
// that lacks an attribute passes no filter on it.
func (s shape) key(pattern string, a event.Attributes) (key, bool) {
	k := key{pattern: pattern}
	if s&byProject != 0 {
		k.project = a.Project
	}
	if s&byTeam != 0 {
		k.team = a.Team
	}
	if s&bySeverity != 0 {
		k.severity = a.Severity
	}
	lacks := s&byProject != 0 && a.Project == "" || s&byTeam != 0 && a.Team == "" || s&bySeverity != 0 && a.Severity == ""
	return k, !lacks
}

// hash mixes the hashes of the parts so that the same text in another part gives another sum.
func (k key) hash(part func(string) uint64) uint64 {
	sum := mix(part(k.pattern))
	sum = mix(sum ^ part(k.project))
	sum = mix(sum ^ part(k.team))
	return mix(sum ^ part(k.severity))
}

// mix is the finalizer of MurmurHash3: every bit of the input moves every bit of the output.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// seed makes the sums of this process its own: nobody can choose filters whose sums collide.
var seed = maphash.MakeSeed()

func hashText(text string) uint64 {
	return maphash.String(seed, text)
}
