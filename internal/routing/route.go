// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package routing decides which subscriptions get an event. Compile turns a subscription and its Secrets into a Route;
// a Table holds the routes and finds those that an event matches.
//
// It promises that the time of a match grows with what matches and not with the number of routes, that one event
// matches a route at most once, and that a Table never changes: a change makes another, at the cost of the change.
// It is pure, and must not know where subscriptions come from nor what becomes of a match.
package routing

import (
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"time"
)

// Route is a compiled subscription: all that is needed to match, send and retry, with every default filled in.
// It is read by many goroutines and never changed once it is in a Table.
type Route struct {
	ID         string // sub_…, from the UID
	Namespace  string
	Name       string
	UID        string
	Generation int64 // of the spec that this was compiled from

	Active bool
	Paused bool
	// Hold is why deliveries must wait although the subscription is active and not paused: a reason of the Delivering
	// condition such as SecretNotFound, "" for no reason.
	Hold string
	// HoldDetail is a sentence for people about Hold, without secrets.
	HoldDetail string

	// Events are the patterns (build.completed, build.*, *). At most one of them matches an event.
	Events []string
	Filter Filter
	Grant  *Grant // of the Namespace, nil where nobody asked for one: see Restrict

	Endpoint      *Endpoint     // nil where the spec's URL is none; never changed
	Timeout       time.Duration // of one attempt, to the last byte of the response
	RatePerMinute int
	MaxInFlight   int
	Retry         Retry
	Keys          [][]byte  // signing keys, the current one first, at most two; empty only with Hold
	PreviousUntil time.Time // when the second key stops; zero without one, and where nobody has set a time yet
	Headers       []Header
	TLS           *TLS // how https connections are made; nil: by the system's authorities, without a client certificate
}

// Endpoint is where the requests of a route go. ParseEndpoint makes it.
type Endpoint struct {
	*url.URL
	Address string // the URL without a password and without the query, which often is one: what may be shown
}

// Filter narrows the events of a route. A part that is empty lets every event pass.
type Filter struct {
	Project    string
	Team       string
	Severities []string // without duplicates
}

// Retry is the schedule of attempts after a failed one.
type Retry struct {
	MaxRetries   int // attempts after the first
	InitialDelay time.Duration
	MaxDelay     time.Duration // never below InitialDelay
}

// Header is sent with every request of a route.
type Header struct {
	Name   string
	Value  string
	Secret bool // Value came from a Secret: it must not be logged, stored or shown
}

// Defaults are what a subscription gets where its spec says nothing.
type Defaults struct {
	RatePerMinute int
	MaxInFlight   int
	Timeout       time.Duration
	Retry         Retry
}

// Equal tells whether two routes say the same in everything.
func (r *Route) Equal(other *Route) bool {
	if r == nil || other == nil {
		return r == other
	}
	if (r.TLS == nil) != (other.TLS == nil) || r.TLS != nil && r.TLS.ID != other.TLS.ID {
		return false
	}
	a, b := *r, *other
	a.TLS, b.TLS = nil, nil // whose parts hold functions, which nothing equals
	return reflect.DeepEqual(&a, &b)
}

// String names the route. It shows nothing else, so that a route in a log line or an error leaks no key.
func (r *Route) String() string {
	return fmt.Sprintf("%s (%s/%s)", r.ID, r.Namespace, r.Name)
}

// GoString is String, for the same reason.
func (r *Route) GoString() string {
	return r.String()
}

// LogValue makes slog show String.
func (r *Route) LogValue() slog.Value {
	return slog.StringValue(r.String())
}

const redacted = "[redacted]"

// String shows the header, its value only if it is not secret.
func (h Header) String() string {
	if h.Secret {
		return h.Name + ": " + redacted
	}
	return h.Name + ": " + h.Value
}

// GoString is String: a secret value shows nowhere.
func (h Header) GoString() string {
	return h.String()
}
