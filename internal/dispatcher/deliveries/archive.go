// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// Archive keeps what has ended for long, all but what waits in the store to be copied; *postgres.Store is one.
type Archive interface {
	List(ctx context.Context, f history.Filter) (history.Page, error)
	Get(ctx context.Context, id string) (history.Record, error)
	Bodies(ctx context.Context, records []history.Record, maxBytes int) (map[history.BodyRef][]byte, error)
}

// Outbox is what a Store does for the sake of the archive: tell what is not in there yet, and take back what is only
// there.
type Outbox interface {
	Waiting(ctx context.Context, f history.Filter, visible func(namespace string) bool) ([]queue.Ended, error)
	FindWaiting(ctx context.Context, id string) (*queue.Ended, error)
	Superseded(ctx context.Context, records []history.Record) (map[string]bool, error)
	Restore(ctx context.Context, r *history.Record, body []byte) (queue.Changed, error)
}

const (
	// maxArchived is how many records of the archive one page looks at where its caller sees some namespaces only.
	maxArchived = 5 * history.MaxLimit
	// largestBody is more than any body takes.
	largestBody = 2 << 20
)

// behind answers where the archive, or what it lacks, cannot be read: a list without it would lack deliveries.
func behind(err error) *rest.Problem {
	why := "PostgreSQL does not answer"
	if errors.Is(err, queue.ErrBehind) {
		why = "it has not caught up yet with what ended"
	}
	return rest.New(http.StatusServiceUnavailable, "the history of deliveries cannot be read just now, since "+why+
		": send this again later; a list with recent=true has what Redis keeps").Retry(retryAway)
}

func viewArchived(r *history.Record) *Delivery {
	d := viewEnded(&queue.Ended{Record: *r})
	d.record, d.archived = r, true
	return d
}

func viewWaiting(e *queue.Ended) *Delivery {
	d := viewEnded(e)
	d.record = &e.Record
	return d
}

// addArchived adds what the archive has and what waits to be copied there, and returns behind which id the archive was
// not looked at. What the store says of a delivery stands: the other may be of the time before somebody retried it.
// Read the store before: what moves on meanwhile is then found in one of them at least.
func (h *handler) addArchived(
	ctx context.Context, s *selection, visible func(namespace string) bool, found map[string]*Delivery,
) (until string, err error) {
	waiting, err := h.store.Waiting(ctx, s.Filter, visible)
	if err != nil {
		return "", err
	}
	records, next, err := h.listArchived(ctx, s, visible)
	if err != nil {
		return "", err
	}
	rows := map[string]*Delivery{}
	for i := range records {
		rows[records[i].ID] = viewArchived(&records[i])
	}
	for i := range waiting {
		if old := rows[waiting[i].ID]; old == nil || old.record.Round < waiting[i].Round {
			rows[waiting[i].ID] = viewWaiting(&waiting[i])
		}
	}
	var doubtful []history.Record
	for id, d := range rows {
		if found[id] == nil && d.record.Status != history.Success { // a success stays one
			doubtful = append(doubtful, *d.record)
		}
	}
	superseded, err := h.store.Superseded(ctx, doubtful)
	for id, d := range rows {
		if found[id] == nil && !superseded[id] {
			found[id] = d
		}
	}
	return string(next), err
}

// listArchived returns the records of about one page.
func (h *handler) listArchived(
	ctx context.Context, s *selection, visible func(namespace string) bool,
) (found []history.Record, next history.Cursor, err error) {
	f := s.Filter
	if s.namespace != "" {
		f.Namespaces = []string{s.namespace}
	}
	for looked := 0; ; f.Limit = history.MaxLimit {
		page, err := h.archive.List(ctx, f)
		if err != nil {
			return nil, "", fmt.Errorf("read the archive: %w", err)
		}
		for i := range page.Records {
			if visible(page.Records[i].Namespace) {
				found = append(found, page.Records[i])
			}
		}
		looked += len(page.Records)
		if page.Next == "" || len(found) >= s.PageSize() || looked >= maxArchived {
			return found, page.Next, nil
		}
		f.After = page.Next
	}
}

// findArchived returns a delivery that left the store's history, with its attempts.
func (h *handler) findArchived(ctx context.Context, id string) (*Delivery, *rest.Problem) {
	if h.archive == nil {
		return nil, notFound(id)
	}
	waiting, waitErr := h.store.FindWaiting(ctx, id)
	switch {
	case waiting != nil:
		return viewWaiting(waiting), nil
	case waitErr != nil && !errors.Is(waitErr, queue.ErrBehind):
		return nil, h.failed(ctx, waitErr)
	}
	record, err := h.archive.Get(ctx, id)
	switch {
	case err == nil && (waitErr == nil || record.Status == history.Success):
		return viewArchived(&record), nil
	case errors.Is(err, history.ErrNotFound) && waitErr == nil:
		return nil, notFound(id)
	default:
		return nil, h.failed(ctx, errors.Join(waitErr, err))
	}
}

// bodiesOf reads the bodies of those of a page that are in the archive, as many as may be shown; all tells that what is
// missing is not kept, rather than too much.
func (h *handler) bodiesOf(ctx context.Context, page []*Delivery) (
	bodies map[history.BodyRef][]byte, all bool, err error,
) {
	var records []history.Record
	for _, d := range page {
		if d.archived {
			records = append(records, *d.record)
		}
	}
	if len(records) == 0 {
		return nil, true, nil
	}
	bodies, err = h.archive.Bodies(ctx, records, maxBodies)
	size := 0
	for _, body := range bodies {
		size += len(body)
	}
	return bodies, size <= maxBodies-largestBody, err
}

// retryAgain tries a delivery anew that the store no longer finds, with its body from where it is kept.
func (h *handler) retryAgain(ctx context.Context, d *Delivery) (queue.Changed, error) {
	page, _, err := h.addBodies(ctx, []*Delivery{d}, "")
	if err != nil {
		return queue.Changed{}, err
	}
	if page[0].RequestBody == nil {
		return queue.Changed{Outcome: queue.Unqueueable, ID: d.ID}, nil
	}
	return h.store.Restore(ctx, d.record, []byte(*page[0].RequestBody))
}
