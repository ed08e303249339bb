// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"slices"
	"strconv"

	"nexus.io/webhooks/internal/event"
)

// maxShown is how many deliveries of an event an answer lists; subscriptions_matched counts them all.
const maxShown = 100

// append writes what became of an event that was accepted. Appending by hand keeps reflection off the hot path.
func (e *entry) append(dst []byte) []byte {
	dst = append(dst, `{"event_id":`...)
	dst = event.AppendString(dst, e.id)
	dst = append(dst, `,"event_type":`...)
	dst = event.AppendString(dst, e.eventType)
	dst = append(dst, `,"subscriptions_matched":`...)
	dst = strconv.AppendInt(dst, int64(len(e.receipt.Targets)), 10)
	dst = append(dst, `,"deliveries":[`...)
	for i, target := range e.receipt.Targets[:min(len(e.receipt.Targets), maxShown)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"subscription_id":`...)
		dst = event.AppendString(dst, target.SubscriptionID)
		dst = append(dst, `,"delivery_id":`...)
		dst = event.AppendString(dst, target.DeliveryID)
		if slices.Contains(e.receipt.BacklogFull, target.SubscriptionID) {
			dst = append(dst, `,"status":"failed"}`...)
			continue
		}
		dst = append(dst, `,"status":"queued"}`...)
	}
	return append(dst, "]}"...)
}

// refusedEvent is the entry of an event that was not accepted in the answer to a batch.
type refusedEvent struct {
	Index  int          `json:"index"`
	Status int          `json:"status"` // that the event would have got on its own
	Error  string       `json:"error"`
	Errors []fieldError `json:"errors,omitempty"`
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
			dst = append(dst, marshal(refusedEvent{i, p.Status, p.Detail, p.Errors})...)
			continue
		}
		dst = entries[i].append(dst)
	}
	return append(dst, "]}"...)
}
