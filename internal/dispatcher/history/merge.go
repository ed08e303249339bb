// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import "slices"

// Merge returns what two clean records of one delivery amount to: the record of the later round, with the attempts of
// both. Of two of the same round the first stands, with nothing of the other: a round ends once, so the other is a
// repetition. Records of one delivery may thus come again and in any order.
func Merge(known, other Record) Record {
	if known.Round == other.Round {
		return known
	}
	if known.Round < other.Round {
		known, other = other, known
	}
	// What the later round says of an attempt stands.
	known.Attempts = inOrder(slices.Concat(known.Attempts, other.Attempts))
	return known
}
