// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"slices"
	"strings"
)

const (
	anyType      = "*"
	familySuffix = ".*"
)

// patternsOf lists the patterns that match an event type: the type itself, its family, and any. A type that is spelled
// like a pattern has itself in the list once only.
func patternsOf(eventType string) []string {
	patterns := []string{eventType}
	if family, _, ok := strings.Cut(eventType, "."); ok && family+familySuffix != eventType {
		patterns = append(patterns, family+familySuffix)
	}
	if eventType != anyType {
		patterns = append(patterns, anyType)
	}
	return patterns
}

// minimise drops every pattern that another one covers, so that no two of them match the same event. What is left keeps
// its order.
func minimise(patterns []string) []string {
	if slices.Contains(patterns, anyType) {
		return []string{anyType}
	}
	kept := make([]string, 0, len(patterns))
	for _, p := range patterns {
		family, _, _ := strings.Cut(p, ".")
		swallowed := p != family+familySuffix && slices.Contains(patterns, family+familySuffix)
		if !swallowed && !slices.Contains(kept, p) {
			kept = append(kept, p)
		}
	}
	return kept
}
