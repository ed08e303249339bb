// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// maxBodies bounds the bodies of one page, in bytes: it ends early.
const maxBodies = 16 << 20

// place in the list is the delivery behind which it goes on.
type place struct {
	After string `json:"after"`
}

type selection struct {
	history.Filter

	open, ended bool // which of them are wanted at all
	recent      bool // only what the store's history has
	status      string
	namespace   string
}

// list serves GET /api/v1/deliveries.
func (h *handler) list(w http.ResponseWriter, r *rest.Request) int {
	s, p := h.selection(r.Request)
	if p != nil {
		return p.Write(w)
	}
	scope, p := rest.NewScope(r.Context(), r.Caller, h.listing(s))
	if p != nil {
		return p.Write(w)
	}
	page, next, err := h.page(r.Context(), s, scope)
	if err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	if p := scope.Problem(); p != nil {
		return p.Write(w)
	}
	if err := h.addAttempts(r.Context(), page); err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	page, next, err = h.addBodies(r.Context(), page, next)
	if err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	if next != "" {
		rest.NextPage(w, r.Request, place{next})
	}
	return rest.JSON(w, http.StatusOK, page)
}

func (h *handler) listing(s *selection) rest.Action {
	return rest.Action{Verb: "list", Resource: resource, Subresource: subresource, Namespace: s.namespace}
}

func (h *handler) selection(r *http.Request) (*selection, *rest.Problem) {
	params := rest.Query(r)
	s := &selection{}
	if id := params.String("subscription_id"); id != "" {
		s.SubscriptionIDs = []string{id}
	}
	s.EventID, s.EventType = params.String("event_id"), params.String("event_type")
	s.status = params.Enum("status", pending, retrying, string(history.Success), string(history.Failed),
		string(history.Canceled))
	s.Since, s.Until = params.Time("since"), params.Time("until")
	s.Limit = params.Int("limit", 1, history.MaxLimit, history.DefaultLimit)
	s.namespace, s.recent = params.Namespace(""), params.Bool("recent", false)
	s.After = cursorOf(params)
	if s.EventType != "" && !event.ValidType(s.EventType) {
		params.Wrong("event_type", "must be one type of event, such as build.completed, and not a pattern")
	}
	if !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		params.Wrong("until", "must be after since")
	}
	s.open = s.status == "" || s.status == pending || s.status == retrying
	s.ended = !s.open || s.status == ""
	if s.ended && s.status != "" {
		s.Statuses = []history.Status{history.Status(s.status)}
	}
	return s, params.Problem()
}

// cursorOf is where a list goes on.
func cursorOf(params *rest.Params) history.Cursor {
	var after place
	if !params.Cursor("cursor", &after) {
		return ""
	}
	cursor, err := history.ParseCursor(after.After)
	if err != nil {
		params.Wrong("cursor", "is none that this list gave out: take it from a Link header, or leave it out to start anew")
	}
	return cursor
}

// page merges what is unfinished with what has ended. What ends meanwhile is in both, and shown as ended.
func (h *handler) page(ctx context.Context, s *selection, scope *rest.Scope) ([]*Delivery, string, error) {
	found := map[string]*Delivery{}
	until := ""
	if s.open {
		h.askAll(scope)
		open, err := h.store.Unfinished(ctx, queue.Selection{
			SubscriptionID: s.onlySubscription(), Newest: s.PageSize() + 1,
			Takes: func(u *queue.Unfinished) bool { return s.takes(u) && scope.Holds(h.namespaceOf(u.SubscriptionID)) },
		})
		if err != nil {
			return nil, "", err
		}
		for i := range open {
			found[open[i].ID] = h.viewUnfinished(&open[i])
		}
	}
	if s.ended {
		visible := func(namespace string) bool {
			return (s.namespace == "" || s.namespace == namespace) && scope.Holds(namespace)
		}
		ended, next, err := h.store.History(ctx, s.Filter, visible)
		if err != nil {
			return nil, "", err
		}
		for i := range ended {
			found[ended[i].ID] = viewEnded(&ended[i])
		}
		until = string(next)
		if h.archive != nil && !s.recent {
			end, err := h.addArchived(ctx, s, visible, found)
			if err != nil {
				return nil, "", err
			}
			until = max(until, end)
		}
	}
	return s.cut(found, until)
}

// askAll asks for all namespaces that have subscriptions what the caller may do there, so that nobody need be asked
// while the store is looked through, which few may do at once.
func (h *handler) askAll(scope *rest.Scope) {
	if scope.Everywhere() {
		return
	}
	for route := range h.routes.All() {
		scope.Holds(route.Namespace)
	}
}

func (s *selection) onlySubscription() string {
	if len(s.SubscriptionIDs) == 1 {
		return s.SubscriptionIDs[0]
	}
	return ""
}

// takes tells whether an unfinished delivery is selected.
func (s *selection) takes(u *queue.Unfinished) bool {
	low, high := s.Bounds()
	return (s.status == "" || s.status == statusOf(u)) && low.String() <= u.ID && u.ID < high.String() &&
		(s.EventID == "" || s.EventID == u.EventID) && (s.EventType == "" || s.EventType == u.EventType)
}

// cut sorts, and ends the page at the limit or where the history was not looked at.
func (s *selection) cut(found map[string]*Delivery, until string) ([]*Delivery, string, error) {
	page := make([]*Delivery, 0, len(found))
	for id, d := range found {
		if id >= until {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b *Delivery) int { return cmp.Compare(b.ID, a.ID) })
	if len(page) > s.PageSize() {
		page = page[:s.PageSize()]
		until = page[len(page)-1].ID
	}
	return page, until, nil
}

// addAttempts shows the last attempt of deliveries that are unfinished.
func (h *handler) addAttempts(ctx context.Context, page []*Delivery) error {
	var open []*queue.Unfinished
	var views []*Delivery
	for _, d := range page {
		if d.open != nil {
			open, views = append(open, d.open), append(views, d)
		}
	}
	records, err := h.store.LastAttempts(ctx, open)
	if err != nil {
		return err
	}
	for i, r := range records {
		if r != nil {
			views[i].last(r)
			views[i].AttemptNumber = open[i].Attempts
		}
	}
	return nil
}

// addBodies reads the bodies, and ends the page where they are too large.
func (h *handler) addBodies(ctx context.Context, page []*Delivery, next string) ([]*Delivery, string, error) {
	archived, all, err := h.bodiesOf(ctx, page)
	if err != nil {
		return nil, "", err
	}
	total, last := 0, ""
	var at []queue.Body
	for i, d := range page {
		size := d.body.Size
		if d.archived {
			body, read := archived[d.record.Body]
			if !read && !all {
				size = maxBodies + 1
			}
			d.setBody(body)
			size = max(size, len(body))
		}
		if total += size; total > maxBodies && i > 0 {
			page, next = page[:i], last
			break
		}
		last = d.ID
		if !d.archived {
			at = append(at, d.body)
		}
	}
	bodies, err := h.store.Bodies(ctx, at)
	if err != nil {
		return nil, "", err
	}
	for _, d := range page {
		if !d.archived {
			d.setBody(bodies[0])
			bodies = bodies[1:]
		}
	}
	return page, next, nil
}

func (d *Delivery) setBody(body []byte) {
	if body != nil {
		text := string(body)
		d.RequestBody = &text
	}
}

// Pending is a delivery that waits, as a client sees it.
type Pending struct {
	DeliveryID     string    `json:"delivery_id"`
	EventID        string    `json:"event_id"`
	EventType      string    `json:"event_type"`
	SubscriptionID string    `json:"subscription_id"`
	Attempt        int       `json:"attempt"` // number of the next one
	ScheduledAt    time.Time `json:"scheduled_at"`
}

// pendingAnswer is what GET /api/v1/deliveries/pending answers: the number of all, and the soonest.
type pendingAnswer struct {
	Count   int       `json:"count"`
	Pending []Pending `json:"pending"`
}

// pending serves GET /api/v1/deliveries/pending.
func (h *handler) pending(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	limit := params.Int("limit", 1, history.MaxLimit, history.DefaultLimit)
	s := &selection{namespace: params.Namespace("")}
	subscriptionID := params.String("subscription_id")
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	scope, p := rest.NewScope(r.Context(), r.Caller, h.listing(s))
	if p != nil {
		return p.Write(w)
	}
	h.askAll(scope)
	open, err := h.store.Unfinished(r.Context(), queue.Selection{
		SubscriptionID: subscriptionID,
		Takes:          func(u *queue.Unfinished) bool { return scope.Holds(h.namespaceOf(u.SubscriptionID)) },
	})
	if err != nil {
		return h.failed(r.Context(), err).Write(w)
	}
	if p := scope.Problem(); p != nil {
		return p.Write(w)
	}
	all := make([]Pending, len(open))
	for i := range open {
		all[i] = viewPending(&open[i])
	}
	slices.SortFunc(all, func(a, b Pending) int {
		return cmp.Or(a.ScheduledAt.Compare(b.ScheduledAt), cmp.Compare(a.DeliveryID, b.DeliveryID))
	})
	return rest.JSON(w, http.StatusOK, pendingAnswer{len(all), all[:min(len(all), limit)]})
}

// viewPending says when the next attempt may start; one that waits for its turn could since it was made.
func viewPending(u *queue.Unfinished) Pending {
	at := u.DueAt
	if at.IsZero() {
		at = u.CreatedAt
	}
	return Pending{u.ID, u.EventID, u.EventType, u.SubscriptionID, u.Attempts + 1, at}
}
