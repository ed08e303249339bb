// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"slices"
	"strings"

	"nexus.io/webhooks/internal/event"
)

// Rule is what keeps an event from a route. The set is closed.
type Rule string

// The rules, in the order in which they are looked at. RuleNone is that of a match.
const (
	RuleNone     Rule = ""
	RuleActive   Rule = "active"
	RuleEvents   Rule = "events"
	RuleProject  Rule = "project_filter"
	RuleTeam     Rule = "team_filter"
	RuleSeverity Rule = "severity_filter"
	RuleGrant    Rule = "namespace_grant"
)

// Explain says which rule keeps an event from the route, and a sentence without a full stop about it. An event that
// Match gives to the route has RuleNone, any other one has not.
func (r *Route) Explain(eventType string, a event.Attributes) (rule Rule, reason string) {
	f := r.Filter
	switch {
	case !r.Active:
		return RuleActive, "the subscription is not active"
	case !slices.ContainsFunc(patternsOf(eventType), func(p string) bool { return slices.Contains(r.Events, p) }):
		return RuleEvents, fmt.Sprintf("it asks for %s, which %q is not among", strings.Join(r.Events, ", "), eventType)
	case f.Project != "" && f.Project != a.Project:
		return RuleProject, filtered("project", f.Project, a.Project)
	case f.Team != "" && f.Team != a.Team:
		return RuleTeam, filtered("team", f.Team, a.Team)
	case len(f.Severities) > 0 && !slices.Contains(f.Severities, a.Severity):
		return RuleSeverity, filtered("severity", strings.Join(f.Severities, ", "), a.Severity)
	}
	if annotation := r.Grant.Refuses(a); annotation != "" {
		return RuleGrant, fmt.Sprintf("the annotation %s of the Namespace %s does not grant it", annotation, r.Namespace)
	}
	return RuleNone, ""
}

func filtered(attribute, wanted, has string) string {
	if has == "" {
		return fmt.Sprintf("it asks for the %s %s, and the event has none: neither data.%s nor metadata.%s is a string",
			attribute, wanted, attribute, attribute)
	}
	return fmt.Sprintf("it asks for the %s %s, and the event's is %q", attribute, wanted, has)
}
