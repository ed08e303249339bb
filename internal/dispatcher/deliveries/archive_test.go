// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/postgrestest"
	"nexus.io/webhooks/test/redistest"
)

// archived is a rig with an archive; of each subscription Redis keeps the latest delivery alone.
type archived struct {
	*rig
	server *postgrestest.Server
	store  *postgres.Store
}

func newArchived(t *testing.T, who caller, subs ...string) *archived {
	t.Helper()
	r := &archived{server: postgrestest.ForTest(t)}
	url, err := r.server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.store, err = postgres.Open(postgres.Options{URL: url, RetentionDays: 7, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.store.Close)
	client, err := queue.Connect(redistest.ForTest(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, err := queue.New(queue.Options{
		Client: client, Dispatcher: "d", Registerer: prometheus.NewRegistry(), MaxHistory: 1, MaxOutboxBytes: 1 << 20,
		Archive: r.store,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.store.Run(ctx) })
	running.Go(func() { _ = q.Run(ctx, &consumer{q}) })
	t.Cleanup(func() { stop(); running.Wait() })
	routes := table{}
	for _, sub := range subs {
		id, namespace, _ := strings.Cut(sub, "/")
		routes[id] = &routing.Route{ID: id, Namespace: namespace}
		if err := q.Configure(t.Context(), []queue.Limits{{
			SubscriptionID: id, Namespace: namespace, Generation: 1, RatePerMinute: 1000, MaxInFlight: 10, MaxBacklog: 100,
			Active: true,
		}}); err != nil {
			t.Fatal(err)
		}
	}
	handler := rest.Handler(New(q, r.store, routes, slog.New(slog.DiscardHandler)), rest.HandlerOptions{Authenticator: who})
	r.rig = &rig{t: t, q: q, handler: handler}
	r.eventually("PostgreSQL is set up", func() error { return r.store.Ready(t.Context()) })
	return r
}

func (r *archived) eventually(what string, check func() error) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for err := check(); err != nil; err = check() {
		select {
		case <-deadline:
			r.t.Fatalf("%s: %v", what, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// deliver publishes one event after another, of one delivery each, and returns the deliveries once they have ended,
// the oldest first.
func (r *archived) deliver(subs ...string) (ids []string) {
	r.t.Helper()
	for _, sub := range subs {
		id := r.publish(sub)[0]
		ids = append(ids, id)
		r.eventually("it has ended", func() error {
			_, ended, err := r.q.Find(r.t.Context(), id)
			if err == nil && (ended == nil || ended.Status == "") {
				err = errors.New(id + " has not ended")
			}
			return err
		})
	}
	return ids
}

// copy does what the copier does.
func (r *archived) copy() {
	r.t.Helper()
	for {
		c, err := r.q.Outboxes()[0].Next(r.t.Context())
		if err == nil {
			_, err = r.store.Write(r.t.Context(), c.Batch)
		}
		if err == nil && len(c.Records) == 0 {
			return
		}
		if err = errors.Join(err, r.q.Outboxes()[0].Copied(r.t.Context(), c)); err != nil {
			r.t.Fatal(err)
		}
	}
}

func newestFirst(ids []string) []string {
	ids = slices.Clone(ids)
	slices.Reverse(ids)
	return ids
}

// all follows a list from page to page.
func (r *archived) all(query string) (ids []string) {
	r.t.Helper()
	for target := path + query; target != ""; {
		var page []Delivery
		status, header := r.call("GET", target, &page)
		if status != http.StatusOK {
			r.t.Fatalf("%s answered %d", target, status)
		}
		for _, d := range page {
			ids = append(ids, d.ID)
			if want := fmt.Sprintf("%v", d.RequestBody != nil); want != "true" {
				r.t.Errorf("%s has no body", d.ID)
			}
		}
		target, _, _ = strings.Cut(strings.TrimPrefix(header.Get("Link"), "<"), ">")
	}
	return ids
}

func TestAListHasWhatRedisHasAndWhatOnlyPostgreSQLHas(t *testing.T) {
	r := newArchived(t, caller{"*"}, "ok/a", "fails/a", "waits/b")
	ids := r.deliver("ok", "fails", "ok", "fails", "ok") // three of them leave the history
	r.copy()
	ids = append(ids, r.publish("waits")...)
	r.become(ids[5], "retrying")
	ids = append(ids, r.deliver("ok", "fails", "ok", "ok")...) // not copied, and all but two not in the history
	for query, want := range map[string][]string{
		"":                           ids,
		"?limit=1":                   ids,
		"?limit=3":                   ids,
		"?status=failed":             {ids[1], ids[3], ids[7]},
		"?status=success&limit=2":    {ids[0], ids[2], ids[4], ids[6], ids[8], ids[9]},
		"?status=retrying":           {ids[5]},
		"?subscription_id=fails":     {ids[1], ids[3], ids[7]},
		"?event_id=evt_1":            {ids[0]},
		"?namespace=b":               {ids[5]},
		"?recent=true&status=failed": {ids[7]},
	} {
		if diff := cmp.Diff(newestFirst(want), r.all(query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	var event eventAnswer
	for _, n := range []int{1, 7} { // only in PostgreSQL, and only in the outbox
		status, _ := r.call("GET", fmt.Sprintf("/api/v1/events/evt_%d", n), &event)
		if status != http.StatusOK || len(event.Deliveries) != 1 || event.Deliveries[0].ID != ids[n-1] {
			t.Errorf("event %d: %d %+v", n, status, event)
		}
	}
	for _, id := range []string{ids[0], ids[1], ids[6]} {
		d := r.become(id, map[bool]string{true: "failed", false: "success"}[id == ids[1]])
		if len(d.Attempts) != 1 || d.RequestBody == nil || *d.RequestBody != `{"n":1}` || d.CreatedAt == nil {
			t.Errorf("%+v", d)
		}
	}
}

func TestAListShowsOfPostgreSQLWhatItsCallerMaySee(t *testing.T) {
	r := newArchived(t, caller{"a"}, "ok-a/a", "ok-b/b")
	ids := r.deliver("ok-a", "ok-b", "ok-b", "ok-a", "ok-b", "ok-b", "ok-a")
	r.copy()
	if diff := cmp.Diff(newestFirst([]string{ids[0], ids[3], ids[6]}), r.all("?limit=1")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for target, want := range map[string]int{
		"GET " + path + "/" + ids[1]: 403, "POST " + path + "/" + ids[1] + "/retry": 403, "GET " + path + "/" + ids[0]: 200,
		"GET /api/v1/events/evt_2": 404,
	} {
		method, target, _ := strings.Cut(target, " ")
		if status, _ := r.call(method, target, nil); status != want {
			t.Errorf("%s answered %d, want %d", target, status, want)
		}
	}
}

func TestADeliveryThatOnlyPostgreSQLHasCanBeRetried(t *testing.T) {
	r := newArchived(t, caller{"*"}, "ok/a", "fails/a")
	ids := r.deliver("ok", "fails", "ok", "fails")
	r.copy()
	retry := func(id string, want int) (c changed) {
		t.Helper()
		var into any = &c
		if want >= http.StatusBadRequest {
			into = nil
		}
		if status, _ := r.call("POST", path+"/"+id+"/retry", into); status != want {
			t.Fatalf("retry of %s answered %d", id, status)
		}
		return c
	}
	again := retry(ids[0], http.StatusAccepted)
	if again.ReplayOf != ids[0] {
		t.Errorf("%+v", again)
	}
	if d := r.become(again.DeliveryID, "success"); *d.RequestBody != `{"n":1}` {
		t.Errorf("it was sent with %s", *d.RequestBody)
	}
	for attempts := 2; attempts <= 3; attempts++ {
		if c := retry(ids[1], http.StatusAccepted); c.DeliveryID != ids[1] || c.ReplayOf != "" {
			t.Errorf("%+v", c)
		}
		eventuallyAttempts(r.rig, ids[1], "failed", attempts)
		r.deliver("fails") // so that it leaves the history again: before it is copied, and after
		if attempts == 2 {
			continue
		}
		r.copy()
		eventuallyAttempts(r.rig, ids[1], "failed", attempts)
	}
	if n := len(r.all("")); n != 7 {
		t.Errorf("%d deliveries are listed", n)
	}
	if status, _ := r.call("POST", path+"/"+ids[0]+"/cancel", nil); status != http.StatusConflict {
		t.Errorf("cancelling one that has ended answered %d", status)
	}
	unknown := uuid.Must(uuid.NewV7()).String()
	retry(unknown, http.StatusNotFound)
	if err := r.q.Cancel(t.Context(), []string{"fails"}); err != nil {
		t.Fatal(err)
	}
	retry(ids[1], http.StatusConflict)
	if found, _, err := r.q.Audit(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("audit: %v %v", found, err)
	}
}

// What was retried is no longer what PostgreSQL says that it is.
func TestWhatSomebodyRetriedIsNotShownAsItWas(t *testing.T) {
	r := newArchived(t, caller{"*"}, "fails/a", "waits/a")
	ids := r.deliver("fails", "fails")
	r.copy()
	if err := r.q.Configure(t.Context(), []queue.Limits{{
		SubscriptionID: "fails", Namespace: "a", Generation: 2, RatePerMinute: 1000, MaxInFlight: 10, MaxBacklog: 100,
		Active: true, Paused: true,
	}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if status, _ := r.call("POST", path+"/"+id+"/retry", nil); status != http.StatusAccepted {
			t.Fatalf("answered %d", status)
		}
	}
	for query, want := range map[string][]string{"": ids, "?status=failed": nil, "?status=retrying": ids} {
		if diff := cmp.Diff(newestFirst(want), r.all(query)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	r.become(ids[0], "retrying")
}

func TestWithoutPostgreSQLNoListPassesForComplete(t *testing.T) {
	r := newArchived(t, caller{"*"}, "ok/a", "waits/a")
	ids := r.deliver("ok", "ok")
	r.copy()
	ids = append(ids, r.publish("waits")...)
	r.become(ids[2], "retrying")
	r.server.Stop()
	for target, want := range map[string]int{
		path: 503, path + "?status=success": 503, "/api/v1/events/evt_1": 503, path + "/" + ids[0]: 503,
		path + "/" + ids[1]: 200, path + "/" + ids[2]: 200, path + "?status=retrying": 200, path + "/pending": 200,
		path + "?recent=true": 200, path + "/" + uuid.Must(uuid.NewV7()).String(): 503,
	} {
		var p rest.Problem
		var into any
		if want == http.StatusServiceUnavailable {
			into = &p
		}
		status, header := r.call("GET", target, into)
		if status != want || want == 503 && (header.Get("Retry-After") == "" || !strings.Contains(p.Detail, "PostgreSQL")) {
			t.Errorf("%s answered %d %+v, want %d", target, status, p, want)
		}
	}
	if diff := cmp.Diff([]string{ids[2], ids[1]}, r.all("?recent=true")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := r.server.Restart(); err != nil {
		t.Fatal(err)
	}
	r.eventually("PostgreSQL is back", func() error { return r.store.Ready(t.Context()) })
	if diff := cmp.Diff(newestFirst(ids), r.all("")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// large is an archive of which one body fits into a page at a time.
type large struct{ Archive }

func (l large) Bodies(
	ctx context.Context, records []history.Record, most int,
) (map[history.BodyRef][]byte, error) {
	bodies, err := l.Archive.Bodies(ctx, records[:1], most)
	for ref := range bodies {
		bodies[ref] = make([]byte, maxBodies-largestBody+1)
	}
	return bodies, err
}

func TestAPageEndsWhereBodiesOfTheArchiveAreTooLarge(t *testing.T) {
	r := newArchived(t, caller{"*"}, "ok/a")
	ids := r.deliverDistinct(3)
	r.copy()
	h := &handler{store: r.q, archive: large{r.store}, routes: table{}, log: slog.New(slog.DiscardHandler)}
	records, _, err := h.listArchived(t.Context(), &selection{}, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	var page []*Delivery
	for i := range records {
		page = append(page, viewArchived(&records[i]))
	}
	page, next, err := h.addBodies(t.Context(), page, "more")
	if err != nil || len(page) != 1 || next != ids[2] || page[0].RequestBody == nil {
		t.Errorf("a page of %d, then %s, %v", len(page), next, err)
	}
}

// deliverDistinct delivers events whose bodies differ.
func (r *archived) deliverDistinct(n int) (ids []string) {
	for range n {
		id := uuid.Must(uuid.NewV7()).String()
		ids = append(ids, id)
		if _, err := r.q.Publish(r.t.Context(), []queue.Publication{{
			EventID: "evt_" + id, EventType: "build.completed", Body: []byte(id),
			Targets: []queue.Target{{SubscriptionID: "ok", DeliveryID: id}},
		}}); err != nil {
			r.t.Fatal(err)
		}
		r.become(id, "success")
	}
	return ids
}

// What failed or succeeded long ago, and left Redis, is retried with the rest.
func TestAnOperationRetriesWhatOnlyPostgreSQLHas(t *testing.T) {
	r := newArchived(t, caller{"*"}, "fails/a", "ok/a")
	failed := r.deliver("fails", "fails", "fails", "fails")
	r.copy()
	failed = append(failed, r.deliver("fails", "fails")...) // one of them waits to be copied, and has left the history
	if o := r.operate(path+"/retry", `{"subscription_id": "fails"}`); o.Matched != 6 || o.Done != 6 {
		t.Errorf("%+v", o)
	}
	for _, id := range failed {
		eventuallyAttempts(r.rig, id, "failed", 2)
	}
	done := r.deliver("ok", "ok", "ok")
	r.copy()
	if o := r.operate(path+"/retry", `{"subscription_id": "ok", "status": "success", "limit": 2}`); o.Matched != 2 || o.Done != 2 {
		t.Errorf("%+v", o)
	}
	r.eventually("the two oldest are repeated", func() error {
		repeated := map[string]int{}
		for _, d := range r.page("?subscription_id=ok&status=success") {
			if d.ReplayOf != nil {
				repeated[*d.ReplayOf]++
			}
		}
		if diff := cmp.Diff(map[string]int{done[0]: 1, done[1]: 1}, repeated); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	if found, _, err := r.q.Audit(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("audit: %v %v", found, err)
	}
}

func (r *archived) page(query string) (page []Delivery) {
	r.t.Helper()
	if status, _ := r.call("GET", path+query, &page); status != http.StatusOK {
		r.t.Fatalf("%s answered %d", query, status)
	}
	return page
}

// While PostgreSQL is away an operation waits for it, and goes on.
func TestAnOperationWaitsForPostgreSQL(t *testing.T) {
	r := newArchived(t, caller{"*"}, "fails/a")
	failed := r.deliver("fails", "fails", "fails")
	r.copy()
	chosen := queue.Chosen{}
	for _, id := range failed {
		chosen = append(chosen, r.q.Place(id, "fails", "a"))
	}
	r.server.Stop()
	choice := queue.Choice{}
	choice.Statuses = []history.Status{history.Failed}
	o, err := r.q.Begin(t.Context(), queue.Plan{Kind: queue.RetryOperation, States: queue.StatesOf(&choice)}, chosen)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(100 * time.Millisecond) // it must not be over by then
	if o, err = r.q.Operation(t.Context(), o.ID); err != nil || !o.FinishedAt.IsZero() || o.Skipped > 0 {
		t.Fatalf("without PostgreSQL: %+v %v", o, err)
	}
	if err := r.server.Restart(); err != nil {
		t.Fatal(err)
	}
	r.eventually("the operation has ended", func() error {
		if o, err = r.q.Operation(t.Context(), o.ID); err != nil || o.FinishedAt.IsZero() {
			return fmt.Errorf("%+v %w", o, err)
		}
		return nil
	})
	if o.Done != 3 || o.Skipped != 0 {
		t.Errorf("%+v", o)
	}
}
