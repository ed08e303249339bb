// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// Operator changes many deliveries; *queue.Queue is one.
type Operator interface {
	Place(id, subscriptionID, namespace string) queue.ChosenDelivery
	Choose(ctx context.Context, c queue.Choice, may func(subscriptionID, namespace string) (string, bool)) (
		queue.Chosen, error)
	Begin(ctx context.Context, p queue.Plan, chosen queue.Chosen) (*queue.Operation, error)
	Operation(ctx context.Context, id string) (*queue.Operation, error)
}

const (
	operationsPath = "/api/v1/operations"
	maxBulkBody    = 16 << 10 // bytes
	// mostChoosing bounds the requests that look for deliveries at once: each walks over all of them, and may hold
	// some 10 MB of ids.
	mostChoosing = 2
	chooseFor    = 30 * time.Second
	retryBusy    = 5 * time.Second
	// maxNamespaces is of how many an operation names the namespaces; whoever looks at one with more must be allowed to
	// in all.
	maxNamespaces = 500
)

// bulk is what is done to many deliveries.
type bulk struct {
	*handler
	operator Operator
	choosing chan struct{}
}

func (h *handler) bulkRoutes(operator Operator) []rest.Route {
	b := &bulk{h, operator, make(chan struct{}, mostChoosing)}
	return []rest.Route{
		{Method: http.MethodPost, Path: path + "/retry", Serve: b.retry},
		{Method: http.MethodPost, Path: path + "/cancel", Serve: b.cancel},
		{Method: http.MethodGet, Path: operationsPath + "/{id}", Serve: b.get},
	}
}

// bulkRequest is the body of a retry or a cancellation of all that match.
type bulkRequest struct {
	SubscriptionID *string    `json:"subscription_id"`
	EventType      *string    `json:"event_type"`
	Status         *string    `json:"status"`
	Since          *time.Time `json:"since"`
	Until          *time.Time `json:"until"`
	Limit          *int       `json:"limit"`
	DryRun         bool       `json:"dry_run"`
}

// begun answers one; dryRun answers what only would be one.
type begun struct {
	OperationID string `json:"operation_id"`
	Matched     int64  `json:"matched"`
}

type dryRun struct {
	Matched int `json:"matched"`
}

// operationAnswer is what GET /api/v1/operations/{id} answers.
type operationAnswer struct {
	OperationID string     `json:"operation_id"`
	Action      string     `json:"action"`
	Status      string     `json:"status"`
	Matched     int64      `json:"matched"`
	Done        int64      `json:"done"`
	Skipped     int64      `json:"skipped"`
	StartedAt   time.Time  `json:"started_at"`
	FinishedAt  *time.Time `json:"finished_at"`
}

// What an operation's status is.
const (
	running  = "running"
	finished = "done"
	expired  = "expired" // its time was over before all was done
)

// States that a delivery may be in for each of the two, and those without a status in the request.
var (
	retried, retriedUnsaid   = []string{"failed", "canceled", "success", retrying}, []string{"failed"}
	canceled, canceledUnsaid = []string{pending, retrying}, []string{pending, retrying}
)

// retry serves POST /api/v1/deliveries/retry.
func (b *bulk) retry(w http.ResponseWriter, r *rest.Request) int {
	return b.change(w, r, queue.RetryOperation, retried, retriedUnsaid)
}

// cancel serves POST /api/v1/deliveries/cancel.
func (b *bulk) cancel(w http.ResponseWriter, r *rest.Request) int {
	return b.change(w, r, queue.CancelOperation, canceled, canceledUnsaid)
}

func (b *bulk) change(
	w http.ResponseWriter, r *rest.Request, kind queue.OperationKind, allowed, unsaid []string,
) int {
	params := rest.Query(r.Request)
	namespace := params.Namespace("")
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	var request bulkRequest
	if p := rest.Decode(w, r.Request, maxBulkBody, &request); p != nil {
		return p.Write(w)
	}
	if p := rest.Invalid(request.mistakes(allowed, namespace != "")); p != nil {
		return p.Write(w)
	}
	choice := request.choice(unsaid)
	chosen, p := b.choose(r, choice, namespace)
	if p != nil {
		return p.Write(w)
	}
	if request.DryRun {
		return rest.JSON(w, http.StatusOK, dryRun{len(chosen)})
	}
	plan := queue.Plan{Kind: kind, States: queue.StatesOf(&choice), Namespaces: namespacesOf(chosen)}
	o, err := b.operator.Begin(r.Context(), plan, chosen)
	switch {
	case errors.Is(err, queue.ErrTooManyOperations):
		return rest.New(http.StatusTooManyRequests, err.Error()+", as many as may be at once: send this again when one of "+
			"them is done").Retry(retryBusy).Write(w)
	case err != nil:
		return b.failed(r.Context(), err).Write(w)
	}
	return rest.JSON(w, http.StatusAccepted, begun{o.ID, o.Matched})
}

// mistakes are what is wrong with the filter; narrowed tells whether a namespace stands beside it.
func (q *bulkRequest) mistakes(allowed []string, narrowed bool) (mistakes []rest.FieldError) {
	check := func(field string, wrong bool, message string) {
		if wrong {
			mistakes = append(mistakes, rest.FieldError{Field: field, Message: message})
		}
	}
	id := q.SubscriptionID
	check("subscription_id", id != nil && (*id == "" || len(*id) > history.MaxIdentifier),
		fmt.Sprintf("must be the id of a subscription, such as sub_9f2c61d04be1, of 1 to %d bytes", history.MaxIdentifier))
	check("event_type", q.EventType != nil && !event.ValidType(*q.EventType),
		"must be one type of event, such as build.completed, and not a pattern")
	check("status", q.Status != nil && !slices.Contains(allowed, *q.Status), "must be one of "+strings.Join(allowed, ", "))
	check("until", q.Since != nil && q.Until != nil && !q.Since.Before(*q.Until), "must be after since")
	check("limit", q.Limit != nil && (*q.Limit < 1 || *q.Limit > queue.MaxOperated),
		fmt.Sprintf("must be a whole number from 1 to %d", queue.MaxOperated))
	check("status", !narrowed && q.empty(), "or another of subscription_id, event_type, since and until must be there, "+
		"lest an empty filter takes everything by accident: to mean all, say which status")
	return mistakes
}

func (q *bulkRequest) empty() bool {
	return q.SubscriptionID == nil && q.EventType == nil && q.Status == nil && q.Since == nil && q.Until == nil
}

func (q *bulkRequest) choice(unsaid []string) queue.Choice {
	c := queue.Choice{Most: queue.MaxOperated}
	if q.SubscriptionID != nil {
		c.SubscriptionIDs = []string{*q.SubscriptionID}
	}
	if q.EventType != nil {
		c.EventType = *q.EventType
	}
	if q.Since != nil {
		c.Since = *q.Since
	}
	if q.Until != nil {
		c.Until = *q.Until
	}
	if q.Limit != nil {
		c.Most = *q.Limit
	}
	if q.Status != nil {
		unsaid = []string{*q.Status}
	}
	for _, status := range unsaid {
		switch status {
		case pending:
			c.Pending = true
		case retrying:
			c.Retrying = true
		default:
			c.Statuses = append(c.Statuses, history.Status(status))
		}
	}
	return c
}

// choose finds what matches and may be changed by the caller.
func (b *bulk) choose(r *rest.Request, choice queue.Choice, namespace string) (queue.Chosen, *rest.Problem) {
	do := rest.Action{Verb: "create", Resource: resource, Subresource: subresource, Namespace: namespace}
	if len(choice.SubscriptionIDs) == 1 && namespace == "" {
		do.Namespace = b.namespaceOf(choice.SubscriptionIDs[0]) // who may not there is told, and not given an empty answer
	}
	scope, p := rest.NewScope(r.Context(), r.Caller, do)
	if p != nil {
		return nil, p
	}
	if !b.anywhere(scope) {
		return nil, cmp.Or(scope.Problem(), rest.New(http.StatusForbidden, "you may not create "+
			"webhooksubscriptions/deliveries of the API group webhooks.nexus.io in any namespace that has a subscription: "+
			"ask for a RoleBinding to a role that allows it"))
	}
	select {
	case b.choosing <- struct{}{}:
		defer func() { <-b.choosing }()
	default:
		return nil, rest.New(http.StatusTooManyRequests, "others look for deliveries to retry or cancel just now: send "+
			"this again in a moment").Retry(retryBusy)
	}
	ctx, cancel := context.WithTimeout(r.Context(), chooseFor)
	defer cancel()
	chosen, err := b.find(ctx, choice, namespace, scope)
	switch {
	case ctx.Err() != nil && r.Context().Err() == nil:
		return nil, rest.New(http.StatusServiceUnavailable, "the deliveries could not be looked through in "+
			chooseFor.String()+": narrow the filter by subscription_id, or by since and until").Retry(retryAway)
	case errors.Is(err, history.ErrUnavailable) || errors.Is(err, queue.ErrBehind):
		return nil, rest.New(http.StatusServiceUnavailable, "the history of deliveries cannot be read just now, so that not "+
			"all that match can be found, and nothing was begun: send this again later").Retry(retryAway)
	case err != nil:
		return nil, b.failed(r.Context(), err)
	}
	return chosen, scope.Problem()
}

// find looks in the store and, for what has ended, in the archive too.
func (b *bulk) find(ctx context.Context, c queue.Choice, namespace string, scope *rest.Scope) (queue.Chosen, error) {
	var archived queue.Chosen
	if b.archive != nil && len(c.Statuses) > 0 {
		s := &selection{Filter: c.Filter, ended: true, namespace: namespace}
		s.Limit = history.MaxLimit
		for more := true; more; more = s.After != "" {
			page, next, err := b.page(ctx, s, scope)
			if err != nil {
				return nil, err
			}
			for _, d := range page {
				archived = append(archived, b.operator.Place(d.ID, d.SubscriptionID, d.namespace))
			}
			if len(archived) > 2*c.Most {
				archived = archived.Oldest(c.Most)
			}
			s.After = history.Cursor(next)
		}
		if c.Statuses = nil; !c.Pending && !c.Retrying {
			return archived.Oldest(c.Most), nil
		}
	}
	chosen, err := b.operator.Choose(ctx, c, func(subscriptionID, namespace string) (string, bool) {
		if namespace == "" {
			namespace = b.namespaceOf(subscriptionID)
		}
		return namespace, scope.Holds(namespace)
	})
	return append(chosen, archived...).Oldest(c.Most), err
}

// anywhere tells whether the scope holds any namespace that has a subscription: others cannot be retried or cancelled.
// Whoever may do nothing must not take a place from those who may.
func (b *bulk) anywhere(scope *rest.Scope) bool {
	if scope.Everywhere() {
		return true
	}
	for route := range b.routes.All() {
		if scope.Holds(route.Namespace) {
			return true
		}
	}
	return false
}

// namespacesOf are those of the deliveries; "" stands for all where they are too many.
func namespacesOf(chosen queue.Chosen) []string {
	set := map[string]bool{}
	for _, d := range chosen {
		if set[d.Namespace] = true; len(set) > maxNamespaces {
			return []string{""}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// get serves GET /api/v1/operations/{id}: to those who may see every delivery that it is about.
func (b *bulk) get(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	id := r.PathValue("id")
	o, err := b.operator.Operation(r.Context(), id)
	switch {
	case err != nil:
		return b.failed(r.Context(), err).Write(w)
	case o == nil:
		return rest.New(http.StatusNotFound, "there is no operation "+quoted(id)+", or it is no longer remembered").Write(w)
	}
	for _, namespace := range o.Namespaces {
		if p := rest.RefusalByID(r.Caller.May(r.Context(), rest.Action{
			Verb: "get", Resource: resource, Subresource: subresource, Namespace: namespace,
		})); p != nil {
			return p.Write(w)
		}
	}
	return rest.JSON(w, http.StatusOK, operationAnswer{
		OperationID: o.ID, Action: string(o.Kind), Status: statusOfOperation(o), Matched: o.Matched, Done: o.Done,
		Skipped: o.Skipped, StartedAt: o.StartedAt, FinishedAt: orNull(o.FinishedAt),
	})
}

func statusOfOperation(o *queue.Operation) string {
	switch {
	case o.FinishedAt.IsZero():
		return running
	case o.Done+o.Skipped < o.Matched:
		return expired
	default:
		return finished
	}
}
