// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"cmp"
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// get serves GET /api/v1/subscriptions/{id}.
func (h *handler) get(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	sub, p := h.find(r, "get")
	if p != nil {
		return p.Write(w)
	}
	return rest.JSON(w, http.StatusOK, h.show(sub))
}

// find returns the subscription of the path, to which the caller may do this.
func (h *handler) find(r *rest.Request, verb string) (*v1alpha1.WebhookSubscription, *rest.Problem) {
	if !h.Cache.Ready() {
		return nil, unready()
	}
	id := r.PathValue("id")
	sub := h.Cache.Object(id)
	if sub == nil {
		return nil, notFound(id)
	}
	may := rest.Action{Verb: verb, Resource: resource, Namespace: sub.Namespace, Name: sub.Name}
	return sub, rest.RefusalByID(r.Caller.May(r.Context(), may))
}

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// place in a list: that of the last subscription that was shown.
type place struct {
	CreatedAt int64  `json:"created_at"` // Unix seconds
	ID        string `json:"id"`
}

func placeOf(sub *v1alpha1.WebhookSubscription) place {
	return place{sub.CreationTimestamp.Unix(), idOf(sub)}
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.CreatedAt, q.CreatedAt), strings.Compare(p.ID, q.ID))
}

// selection is what a list shows.
type selection struct {
	namespace string // "": all
	active    bool   // those alone
	eventType string // "": all
	after     place
	limit     int
}

// list serves GET /api/v1/subscriptions.
func (h *handler) list(w http.ResponseWriter, r *rest.Request) int {
	chosen, p := h.selection(r.Request)
	if p != nil {
		return p.Write(w)
	}
	if !h.Cache.Ready() {
		return unready().Write(w)
	}
	subs, more, p := h.choose(r.Context(), chosen, r.Caller)
	if p != nil {
		return p.Write(w)
	}
	if more {
		rest.NextPage(w, r.Request, placeOf(subs[len(subs)-1]))
	}
	views := make([]*Subscription, len(subs))
	for i, sub := range subs {
		views[i] = h.show(sub)
	}
	return rest.JSON(w, http.StatusOK, views)
}

var eventOrPattern = regexp.MustCompile(`^[a-z0-9_]{1,64}\.([a-z0-9_]{1,64}|\*)$`)

func (h *handler) selection(r *http.Request) (selection, *rest.Problem) {
	params := rest.Query(r)
	s := selection{
		active:    params.Bool("active_only", false),
		eventType: params.String("event_type"),
		namespace: params.Namespace(""),
		limit:     params.Int("limit", 1, maxLimit, defaultLimit),
	}
	params.Cursor("cursor", &s.after)
	switch {
	case s.eventType == "":
	case !eventOrPattern.MatchString(s.eventType) && s.eventType != "*":
		params.Wrong("event_type", "must be an event type such as build.completed, a family such as build.*, or *")
	case !h.Catalogue.KnowsPattern(s.eventType):
		params.Wrong("event_type", h.unknownType(s.eventType))
	}
	return s, params.Problem()
}

// choose returns the first subscriptions of a selection that the caller may see, and whether there are more.
func (h *handler) choose(
	ctx context.Context, s selection, caller rest.Caller,
) (chosen []*v1alpha1.WebhookSubscription, more bool, p *rest.Problem) {
	scope, p := rest.NewScope(ctx, caller, rest.Action{Verb: "list", Resource: resource, Namespace: s.namespace})
	if p != nil {
		return nil, false, p
	}
	byPlace := func(a, b *v1alpha1.WebhookSubscription) int { return placeOf(a).compare(placeOf(b)) }
	for sub := range h.Cache.Objects() {
		if !s.takes(sub) || !scope.Holds(sub.Namespace) {
			continue
		}
		chosen = append(chosen, sub)
		if len(chosen) >= 2*(s.limit+1) { // what is further behind is not shown anyway
			slices.SortFunc(chosen, byPlace)
			chosen = chosen[:s.limit+1]
		}
	}
	if p := scope.Problem(); p != nil {
		return nil, false, p
	}
	slices.SortFunc(chosen, byPlace)
	if len(chosen) > s.limit {
		return chosen[:s.limit], true, nil
	}
	return chosen, false, nil
}

func (s *selection) takes(sub *v1alpha1.WebhookSubscription) bool {
	return (s.namespace == "" || sub.Namespace == s.namespace) &&
		(!s.active || sub.IsActive()) &&
		(s.eventType == "" || asksFor(sub.Spec.Events, s.eventType)) &&
		sub.CreationTimestamp.Unix() >= s.after.CreatedAt && placeOf(sub).compare(s.after) > 0
}

// asksFor tells whether events of the type, or all of the family, reach those who ask for these.
func asksFor(events []string, eventType string) bool {
	family, _, _ := strings.Cut(eventType, ".")
	return slices.ContainsFunc(events, func(e string) bool { return e == eventType || e == "*" || e == family+".*" })
}
