// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package trial is the HTTP API by which people try out an endpoint or a signature.
//
// It promises that a test takes the way of a delivery (the same transport and its guard, the same request), that it is
// neither queued nor stored nor counted, and that its answer shows no secret but one that it made itself.
// It must not know the queue's keys, nor how a subscription becomes a route.
package trial

import (
	"cmp"
	"errors"
	"net/http"
	"time"

	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// Options of the API. All are required.
type Options struct {
	// Table returns the present routing table, nil until the first one is complete.
	Table     func() *routing.Table
	Transport Transport
	Version   string // of this program, for User-Agent
	Catalogue *event.Catalogue
	Timeout   time.Duration // of a test of a URL
	Namespace string        // in which somebody who tests a URL must be allowed to create subscriptions
}

// Transport is the way of deliveries, which can make its connections as a route asks.
type Transport interface {
	http.RoundTripper
	As(identity egress.Identity) http.RoundTripper
}

const (
	// maxTests bounds the tests that run at once: an endpoint that hangs holds a connection until the timeout.
	maxTests = 32
	// mostTime bounds a test, so that its answer comes before the server gives up writing it.
	mostTime = 60 * time.Second
)

type handler struct {
	Options
	places chan struct{}
}

// New returns the routes of the API.
func New(o Options) ([]rest.Route, error) {
	if o.Table == nil || o.Transport == nil || o.Catalogue == nil || o.Timeout == 0 || o.Namespace == "" {
		return nil, errors.New("trials need a table, a transport, a catalogue, a timeout and a namespace")
	}
	o.Version = cmp.Or(o.Version, "dev")
	h := &handler{o, make(chan struct{}, maxTests)}
	return []rest.Route{
		{Method: http.MethodPost, Path: "/api/v1/test", Serve: h.testURL},
		{Method: http.MethodPost, Path: "/api/v1/subscriptions/{id}/test", Serve: rest.WithoutBody(h.testSubscription)},
		{Method: http.MethodPost, Path: "/api/v1/verify-signature", Serve: verify},
	}, nil
}
