// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nexus.io/webhooks/internal/dispatcher/delivery"
	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

const (
	maxBody   = 64 << 10
	maxURL    = 2048
	maxSecret = 1024
	redacted  = "[redacted]"
)

// target is what to test.
type target struct {
	URL       *string `json:"url"`
	Secret    *string `json:"secret"`
	EventType *string `json:"event_type"`
}

// result is what came of a test.
type result struct {
	Success         bool              `json:"success"`
	Error           string            `json:"error,omitempty"`
	StatusCode      int               `json:"status_code,omitempty"`
	ResponseTime    int64             `json:"response_time_ms"`
	ResponseBody    string            `json:"response_body"` // its first 1,000 bytes
	HeadersSent     map[string]string `json:"headers_sent"`
	SignatureSecret *string           `json:"signature_secret"` // that was made for this test; null: the caller's own
}

// testURL serves POST /api/v1/test.
func (h *handler) testURL(w http.ResponseWriter, r *rest.Request) int {
	params := rest.Query(r.Request)
	namespace := params.Namespace(h.Namespace)
	if p := params.Problem(); p != nil {
		return p.Write(w)
	}
	// Whoever may create a subscription could have the same sent; nobody else needs to.
	may := rest.Action{Verb: "create", Resource: "webhooksubscriptions", Namespace: namespace}
	if p := rest.Refusal(r.Caller.May(r.Context(), may)); p != nil {
		return p.Write(w)
	}
	var t target
	if p := rest.Decode(w, r.Request, maxBody, &t); p != nil {
		return p.Write(w)
	}
	route, eventType, p := h.routeTo(t)
	if p != nil {
		return p.Write(w)
	}
	var made *string
	if t.Secret == nil {
		secret := newSecret()
		route.Keys, made = [][]byte{[]byte(secret)}, &secret
	}
	return h.test(w, r, route, eventType, made)
}

func newSecret() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return hex.EncodeToString(secret[:])
}

// routeTo makes a route of what a client asks for, without a key where it gives no secret.
func (h *handler) routeTo(t target) (*routing.Route, string, *rest.Problem) {
	p := rest.New(http.StatusUnprocessableEntity, "")
	route := &routing.Route{ID: "test", Timeout: h.Timeout}
	if t.URL == nil {
		p.Field("url", "must be there: "+urlWanted)
	} else if wrong := wrongWithURL(*t.URL); wrong != "" {
		p.Field("url", wrong)
	} else {
		route.Endpoint = routing.ParseEndpoint(*t.URL)
	}
	if t.Secret != nil {
		if *t.Secret == "" || len(*t.Secret) > maxSecret {
			p.Field("secret", "must have 1 to 1,024 bytes; leave it out to have one made")
		}
		route.Keys = [][]byte{[]byte(*t.Secret)}
	}
	eventType := h.Catalogue.Types()[0].Type
	if t.EventType != nil {
		eventType = *t.EventType
		if !h.Catalogue.Knows(eventType) {
			p.Field("event_type", h.unknown(eventType))
		}
	}
	if len(p.Errors) > 0 {
		return nil, "", p
	}
	return route, eventType, nil
}

const urlWanted = "an absolute http:// or https:// URL of at most 2,048 characters, without credentials"

// wrongWithURL says what keeps a URL from being tested, "" for nothing: what a subscription's url must not be either.
func wrongWithURL(raw string) string {
	if strings.ContainsFunc(raw, func(c rune) bool { return unicode.In(c, unicode.Z, unicode.Cc) }) {
		return "must not contain spaces or control characters: percent-encode them (a space is %20)"
	}
	endpoint := routing.ParseEndpoint(raw)
	if utf8.RuneCountInString(raw) > maxURL || endpoint == nil || endpoint.User != nil || endpoint.Hostname() == "" ||
		(endpoint.Scheme != "https" && endpoint.Scheme != "http") {
		return "must be " + urlWanted
	}
	port, err := strconv.Atoi(endpoint.Port())
	host := endpoint.Hostname()
	switch {
	case strings.HasSuffix(endpoint.Host, ":"), endpoint.Port() != "" && (err != nil || port < 1 || port > 65535):
		return "must have a port from 1 to 65535, or none and no ':'"
	case strings.HasPrefix(host, "."), strings.Contains(host, ".."):
		return "must have a host without empty parts: remove the dot at its start, or one of two dots in a row"
	}
	return ""
}

func (h *handler) unknown(eventType string) string {
	if near := h.Catalogue.Nearest(eventType); near != "" {
		return fmt.Sprintf("%.128q is not a known event type; did you mean %q?", eventType, near)
	}
	return fmt.Sprintf("%.128q is not a known event type; GET /api/v1/event-types lists them", eventType)
}

// testSubscription serves POST /api/v1/subscriptions/{id}/test.
func (h *handler) testSubscription(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	table := h.Table()
	if table == nil {
		return rest.New(http.StatusServiceUnavailable, "this dispatcher has not read all subscriptions yet (GET /readyz "+
			"tells why): send this again in a moment").Retry(2 * time.Second).Write(w)
	}
	id := r.PathValue("id")
	route := table.Route(id)
	if route == nil {
		return rest.New(http.StatusNotFound,
			fmt.Sprintf("there is no subscription %.64q: GET /api/v1/subscriptions lists them", id)).Write(w)
	}
	may := rest.Action{
		Verb: "patch", Resource: "webhooksubscriptions", Namespace: route.Namespace, Name: route.Name,
	}
	if p := rest.RefusalByID(r.Caller.May(r.Context(), may)); p != nil {
		return p.Write(w)
	}
	if route.Hold != "" || len(route.Keys) == 0 {
		w.Header().Set("Cache-Control", "no-store")
		return rest.JSON(w, http.StatusOK, result{
			Error: "nothing can be sent: " + route.HoldDetail, HeadersSent: map[string]string{},
		})
	}
	return h.test(w, r, route, h.typeFor(route.Events), nil)
}

// typeFor is the first known event type that one of the patterns matches.
func (h *handler) typeFor(patterns []string) string {
	types := h.Catalogue.Types()
	for _, pattern := range patterns {
		prefix, family := strings.CutSuffix(pattern, "*")
		for _, t := range types {
			if t.Type == pattern || family && strings.HasPrefix(t.Type, prefix) {
				return t.Type
			}
		}
	}
	return types[0].Type
}

// test makes one attempt and answers with what came of it.
func (h *handler) test(
	w http.ResponseWriter, r *rest.Request, route *routing.Route, eventType string, made *string,
) int {
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return rest.New(http.StatusTooManyRequests, fmt.Sprintf("%d tests are running already: send this again in a "+
			"moment", maxTests)).Retry(time.Second).Write(w)
	}
	ctx, cancel := context.WithTimeout(r.Context(), mostTime)
	defer cancel()
	e := event.Event{
		ID: event.NewID(), Type: eventType, Source: "nexus-webhooks", Timestamp: time.Now().UTC(),
		Data: json.RawMessage(`{"test":true,"message":"This is a test. Nothing happened."}`),
	}
	recorder := &recorder{next: h.Transport, transport: h.Transport, sent: &http.Header{}}
	exchange := delivery.NewSender(recorder, h.Version).Send(ctx, route, queue.Lease{
		DeliveryID: event.NewDeliveryID(), SubscriptionID: route.ID, EventID: e.ID, EventType: e.Type, Attempt: 1,
		Body: e.AppendBody(nil),
	})
	w.Header().Set("Cache-Control", "no-store")
	return rest.JSON(w, http.StatusOK, result{
		Success: exchange.Err == nil && exchange.StatusCode/100 == 2, Error: delivery.Describe(exchange),
		StatusCode: exchange.StatusCode, ResponseTime: exchange.Duration.Milliseconds(),
		ResponseBody:    strings.ToValidUTF8(string(delivery.WithoutSecrets(exchange.Body, route)), "\uFFFD"),
		HeadersSent:     shown(*recorder.sent, route),
		SignatureSecret: made,
	})
}

// shown are the headers that were sent, without the values that came from Secrets.
func shown(sent http.Header, route *routing.Route) map[string]string {
	headers := make(map[string]string, len(sent))
	for name, values := range sent {
		headers[name] = strings.Join(values, ", ")
	}
	for _, header := range route.Headers {
		name := http.CanonicalHeaderKey(header.Name)
		if _, there := headers[name]; there && header.Secret {
			headers[name] = redacted
		}
	}
	return headers
}

// recorder keeps the headers of a request that it sends.
type recorder struct {
	next      http.RoundTripper
	transport Transport
	sent      *http.Header
}

// RoundTrip sends by the transport behind it.
func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	*r.sent = request.Header.Clone()
	return r.next.RoundTrip(request)
}

// As records what is sent over connections that are made as a route asks.
func (r *recorder) As(identity egress.Identity) http.RoundTripper {
	return &recorder{next: r.transport.As(identity), transport: r.transport, sent: r.sent}
}
