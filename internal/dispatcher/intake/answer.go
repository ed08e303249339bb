// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"slices"
	"strconv"
	"strings"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// maxShown is how many deliveries of an event an answer lists; subscriptions_matched counts them all.
const maxShown = 100

// outcome is what an answer shows of the queue's receipt. It must not keep the rest of one alive: a batch may have a
// thousand events with ten thousand matches each.
type outcome struct {
	duplicate bool
	matched   int
	shown     []queue.Target // the first maxShown
	late      []string       // of those, the subscriptions whose backlog was full
}

func outcomeOf(r queue.Receipt) outcome {
	o := outcome{duplicate: r.Outcome == queue.Duplicate, matched: len(r.Targets), shown: r.Targets}
	if len(r.Targets) > maxShown {
		o.shown = firstOf(r.Targets)
	}
	if len(r.BacklogFull) > 0 {
		o.late = lateOf(o.shown, r.BacklogFull)
	}
	return o
}

// firstOf copies the strings as well, which may be parts of a single large one.
func firstOf(targets []queue.Target) []queue.Target {
	first := make([]queue.Target, maxShown)
	for i, t := range targets[:maxShown] {
		first[i] = queue.Target{
			SubscriptionID: strings.Clone(t.SubscriptionID), DeliveryID: strings.Clone(t.DeliveryID),
		}
	}
	return first
}

func lateOf(shown []queue.Target, backlogFull []string) []string {
	full := make(map[string]bool, len(backlogFull))
	for _, id := range backlogFull {
		full[id] = true
	}
	var late []string
	for _, t := range shown {
		if full[t.SubscriptionID] {
			late = append(late, t.SubscriptionID)
		}
	}
	return late
}

// append writes what became of an event that was accepted. Appending by hand keeps reflection off the hot path.
func (e *entry) append(dst []byte) []byte {
	dst = append(dst, `{"event_id":`...)
	dst = event.AppendString(dst, e.id)
	dst = append(dst, `,"event_type":`...)
	dst = event.AppendString(dst, e.eventType)
	dst = append(dst, `,"subscriptions_matched":`...)
	dst = strconv.AppendInt(dst, int64(e.outcome.matched), 10)
	dst = append(dst, `,"deliveries":[`...)
	for i, target := range e.outcome.shown {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"subscription_id":`...)
		dst = event.AppendString(dst, target.SubscriptionID)
		dst = append(dst, `,"delivery_id":`...)
		dst = event.AppendString(dst, target.DeliveryID)
		if slices.Contains(e.outcome.late, target.SubscriptionID) {
			dst = append(dst, `,"status":"failed"}`...)
			continue
		}
		dst = append(dst, `,"status":"queued"}`...)
	}
	return append(dst, "]}"...)
}

// refusedEvent is the entry of an event that was not accepted in the answer to a batch.
type refusedEvent struct {
	Index  int               `json:"index"`
	Status int               `json:"status"` // that the event would have got on its own
	Error  string            `json:"error"`
	Errors []rest.FieldError `json:"errors,omitempty"`
}

func appendBatch(dst []byte, entries []entry) []byte {
	dst = append(dst, `{"total_events":`...)
	dst = strconv.AppendInt(dst, int64(len(entries)), 10)
	dst = append(dst, `,"results":[`...)
	for i := range entries {
		if i > 0 {
			dst = append(dst, ',')
		}
		if p := entries[i].refused; p != nil {
			dst = append(dst, rest.Marshal(refusedEvent{i, p.Status, p.Detail, p.Errors})...)
			continue
		}
		dst = entries[i].append(dst)
	}
	return append(dst, "]}"...)
}
