// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import "strings"

// nearest returns the candidate with the fewest edits to what somebody wrote (the first of several), or "" where more
// than a third of it would have to change: then a guess would only mislead.
func nearest(written string, candidates []string) string {
	if len(written) > MaxTypeLength {
		return ""
	}
	written = strings.ToLower(written)
	best, least := "", len(written)/3+2
	for _, candidate := range candidates {
		if d := distance(written, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, substitutions and swaps of neighbours that turn a into b (optimal
// string alignment), counted in bytes.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
