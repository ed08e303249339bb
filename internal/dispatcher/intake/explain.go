// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"iter"
	"net/http"
	"slices"
	"strings"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

const (
	explainedByDefault = 100
	mostExplained      = 1000
)

// explanation is what an event would match. Nothing of it is queued.
type explanation struct {
	EventType     string      `json:"event_type"`
	Project       string      `json:"project,omitempty"`
	Team          string      `json:"team,omitempty"`
	Severity      string      `json:"severity,omitempty"`
	Matched       int         `json:"subscriptions_matched"` // of those that the caller may see
	Subscriptions []explained `json:"subscriptions"`         // those that match first
}

// explained is what a subscription makes of an event.
type explained struct {
	SubscriptionID string       `json:"subscription_id"`
	Namespace      string       `json:"namespace"`
	ResourceName   string       `json:"resource_name"`
	Matches        bool         `json:"matches"`
	Rule           routing.Rule `json:"rule,omitempty"`   // that says no
	Reason         string       `json:"reason,omitempty"` // why it does
	Waits          string       `json:"waits,omitempty"`  // why the delivery would not be sent at once
}

// spot is the place of a subscription in an explanation.
type spot struct {
	Unmatched bool   `json:"unmatched"`
	ID        string `json:"id"`
}

// question is what is asked about an event.
type question struct {
	subscription string // "": all
	namespace    string // "": all
	limit        int
	after        spot
}

// explainEvent serves POST /api/v1/events/explain.
func (h *handler) explainEvent(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	q := question{
		subscription: params.String("subscription_id"), namespace: params.String("namespace"),
		limit: params.Int("limit", 1, mostExplained, explainedByDefault),
	}
	params.Cursor("cursor", &q.after)
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	scope, p := rest.NewScope(r.Context(), r.Caller,
		rest.Action{Verb: "list", Resource: "webhooksubscriptions", Namespace: q.namespace})
	if p != nil {
		return p.Write(w)
	}
	x := h.exchange()
	defer h.release(x)
	if p := h.read(w, r.Request, x, h.Limits.MaxEventBytes); p != nil {
		return p.Write(w)
	}
	parsed, p := h.parse(&entry{raw: x.request})
	if p != nil {
		return p.Write(w)
	}
	table := h.Table()
	if table == nil {
		return notReady().Write(w)
	}
	found, last := q.answer(table, parsed, scope)
	if p := scope.Problem(); p != nil {
		return p.Write(w)
	}
	if last != nil {
		rest.NextPage(w, r.Request, *last)
	}
	return rest.JSON(w, http.StatusOK, found)
}

// answer explains a page of routes; last is its end where there are more.
func (q *question) answer(table *routing.Table, e event.Event, scope *rest.Scope) (found explanation, last *spot) {
	a := e.Attributes()
	found = explanation{
		EventType: e.Type, Project: a.Project, Team: a.Team, Severity: a.Severity, Subscriptions: []explained{},
	}
	matched := slices.DeleteFunc(table.Match(e.Type, a), func(r *routing.Route) bool { return !q.wants(r, scope) })
	slices.SortFunc(matched, func(a, b *routing.Route) int { return strings.Compare(a.ID, b.ID) })
	found.Matched = len(matched)
	for r := range q.after.rest(table, matched) {
		if !q.wants(r, scope) {
			continue
		}
		if n := len(found.Subscriptions); n == q.limit {
			end := found.Subscriptions[n-1]
			return found, &spot{Unmatched: !end.Matches, ID: end.SubscriptionID}
		}
		found.Subscriptions = append(found.Subscriptions, explain(r, e.Type, a))
	}
	return found, nil
}

func (q *question) wants(r *routing.Route, scope *rest.Scope) bool {
	return (q.subscription == "" || r.ID == q.subscription) && (q.namespace == "" || r.Namespace == q.namespace) &&
		scope.Holds(r.Namespace)
}

// rest lists what comes behind a spot: the routes that matched, by ID, then the others, by ID.
func (s spot) rest(table *routing.Table, matched []*routing.Route) iter.Seq[*routing.Route] {
	return func(yield func(*routing.Route) bool) {
		isMatched := make(map[*routing.Route]bool, len(matched))
		for _, r := range matched {
			isMatched[r] = true
			if !s.Unmatched && r.ID > s.ID && !yield(r) {
				return
			}
		}
		from := ""
		if s.Unmatched {
			from = s.ID
		}
		for r := range table.After(from) {
			if !isMatched[r] && !yield(r) {
				return
			}
		}
	}
}

func explain(r *routing.Route, eventType string, a event.Attributes) explained {
	rule, reason := r.Explain(eventType, a)
	e := explained{
		SubscriptionID: r.ID, Namespace: r.Namespace, ResourceName: r.Name,
		Matches: rule == routing.RuleNone, Rule: rule, Reason: reason,
	}
	switch {
	case !e.Matches:
	case r.Hold != "":
		e.Waits = r.HoldDetail
	case r.Paused:
		e.Waits = "the subscription is paused"
	}
	return e
}
