// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// TypeInfo describes one event type for people.
type TypeInfo struct {
	Type        string `json:"type"`
	Category    string `json:"category"`
	Description string `json:"description"`
}

// Catalogue is the set of event types that publishers may use and subscriptions may ask for. It does not change.
type Catalogue struct {
	types    []TypeInfo     // in the order in which they are shown
	index    map[string]int // type to its place in types
	patterns []string       // "release.*" for each first word, in the order of types
}

// Builtin returns the catalogue of the types that every installation knows.
func Builtin() *Catalogue {
	return newCatalogue(builtinTypes)
}

// LoadCatalogue returns the built-in types and those of a YAML or JSON file, which has the one field eventTypes, a list
// of {type, category, description}. A type that is built in gets the file's category and description. path "" is the
// same as Builtin. The error names the file and the entry.
func LoadCatalogue(path string) (*Catalogue, error) {
	if path == "" {
		return Builtin(), nil
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read event types: %w", err)
	}
	types, err := parseTypes(text)
	if err != nil {
		return nil, fmt.Errorf("event types in %s: %w", path, err)
	}
	return newCatalogue(slices.Concat(builtinTypes, types)), nil
}

func parseTypes(text []byte) ([]TypeInfo, error) {
	var file struct {
		EventTypes []TypeInfo `json:"eventTypes"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	seen := map[string]bool{}
	for i, t := range file.EventTypes {
		if !ValidType(t.Type) {
			return nil, fmt.Errorf("eventTypes[%d]: type %q must be two words with a dot between, such as "+
				"release.completed: lower-case letters, digits and underscores", i, t.Type)
		}
		if seen[t.Type] {
			return nil, fmt.Errorf("eventTypes[%d]: type %q is listed twice", i, t.Type)
		}
		seen[t.Type] = true
	}
	return file.EventTypes, nil
}

// newCatalogue lets a later entry of the same type replace an earlier one.
func newCatalogue(types []TypeInfo) *Catalogue {
	c := &Catalogue{index: make(map[string]int, len(types))}
	for _, t := range types {
		if i, known := c.index[t.Type]; known {
			c.types[i] = t
			continue
		}
		c.index[t.Type] = len(c.types)
		c.types = append(c.types, t)
		if p := patternOf(t.Type); !slices.Contains(c.patterns, p) {
			c.patterns = append(c.patterns, p)
		}
	}
	return c
}

// patternOf returns the pattern "word.*" that holds a type.
func patternOf(t string) string {
	first, _, _ := strings.Cut(t, ".")
	return first + ".*"
}

// Types returns all types, the built-in ones first.
func (c *Catalogue) Types() []TypeInfo {
	return slices.Clone(c.types)
}

// Knows reports whether t is a known type.
func (c *Catalogue) Knows(t string) bool {
	_, known := c.index[t]
	return known
}

// KnowsPattern reports whether a subscription's pattern can match: a known type, "*", or "word.*" with at least one
// known type.
func (c *Catalogue) KnowsPattern(pattern string) bool {
	return pattern == "*" || c.Knows(pattern) || slices.Contains(c.patterns, pattern)
}

// Nearest returns the known type (for "word.*" the known pattern) that somebody who wrote t most likely meant, or ""
// where nothing is close.
func (c *Catalogue) Nearest(t string) string {
	if strings.HasSuffix(t, ".*") {
		return nearest(t, c.patterns)
	}
	known := make([]string, len(c.types))
	for i, info := range c.types {
		known[i] = info.Type
	}
	return nearest(t, known)
}

var builtinTypes = []TypeInfo{
	{"release.created", "Release", "New release initiated"},
	{"release.started", "Release", "Release process started"},
	{"release.completed", "Release", "Release successfully completed"},
	{"release.failed", "Release", "Release failed"},
	{"release.rolled_back", "Release", "Release was rolled back"},
	{"build.started", "Build", "Build started"},
	{"build.completed", "Build", "Build completed successfully"},
	{"build.failed", "Build", "Build failed"},
	{"deployment.started", "Deployment", "Deployment to environment started"},
	{"deployment.completed", "Deployment", "Deployment completed"},
	{"deployment.failed", "Deployment", "Deployment failed"},
	{"ticket.created", "Jira", "New ticket created"},
	{"ticket.updated", "Jira", "Ticket updated"},
	{"ticket.transitioned", "Jira", "Ticket status changed"},
	{"ticket.completed", "Jira", "Ticket marked done"},
	{"hygiene.check_completed", "Hygiene", "Hygiene check finished"},
	{"hygiene.violations_found", "Hygiene", "New violations detected"},
	{"hygiene.score_changed", "Hygiene", "Hygiene score changed significantly"},
	{"security.scan_completed", "Security", "Security scan finished"},
	{"security.vulnerability_detected", "Security", "New vulnerability found"},
	{"analytics.anomaly_detected", "Analytics", "Metric anomaly detected"},
	{"analytics.kpi_threshold_breached", "Analytics", "KPI threshold exceeded"},
	{"system.agent_status_changed", "System", "Agent health changed"},
	{"system.orchestrator_error", "System", "Orchestrator error occurred"},
}
