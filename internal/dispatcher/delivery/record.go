// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// ownHeaders are those that every request has, in the order in which the history keeps them.
var ownHeaders = [...]string{
	"X-Nexus-Signature-256", "X-Nexus-Signature-256-Alt", "X-Nexus-Timestamp", "X-Nexus-Event", "X-Nexus-Delivery",
	"Content-Type", "User-Agent",
}

// packed is the attempt as the history keeps it, nil for one that was none: what is released was not sent.
func packed(route *routing.Route, s queue.Settlement, e Exchange) []byte {
	if s.Result == queue.Release {
		return nil
	}
	attempt := history.Attempt{
		Number: s.Lease.Attempt, StartedAt: e.Started, Duration: e.Duration, StatusCode: e.StatusCode,
		Reason: s.Reason, Error: s.Error, ResponseBody: WithoutSecrets(e.Body, route),
		ConnectionReused: e.Reused, RemoteAddress: e.RemoteAddress,
	}
	var room [16]history.Header
	return history.AppendAttempt(nil, &attempt, addressOf(route), shownHeaders(room[:0], route, e.Header))
}

// addressOf is where the route's requests go, as it may be shown.
func addressOf(route *routing.Route) string {
	if route.Endpoint == nil {
		return ""
	}
	return route.Endpoint.Address
}

// shownHeaders appends the headers of a request that may be shown: never one that comes from a Secret, nor one of that
// name from elsewhere, since which of them was sent is not told apart here.
func shownHeaders(shown []history.Header, route *routing.Route, sent http.Header) []history.Header {
	for _, name := range ownHeaders {
		if values := sent[name]; len(values) > 0 {
			shown = append(shown, history.Header{Name: name, Value: values[0]})
		}
	}
	for _, h := range route.Headers {
		name := http.CanonicalHeaderKey(h.Name)
		if values := sent[name]; len(values) > 0 && !isOwn(name) && !isSecret(route, name) {
			shown = append(shown, history.Header{Name: name, Value: values[0]})
		}
	}
	return shown
}

func isOwn(name string) bool {
	for _, own := range ownHeaders {
		if own == name {
			return true
		}
	}
	return false
}

func isSecret(route *routing.Route, name string) bool {
	for _, h := range route.Headers {
		if h.Secret && http.CanonicalHeaderKey(h.Name) == name {
			return true
		}
	}
	return false
}
