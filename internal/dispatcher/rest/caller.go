// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Action is what a caller wants to do, in the words of Kubernetes' RBAC; the API group is webhooks.nexus.io.
type Action struct {
	Verb, Resource, Subresource string
	Namespace, Name             string // "": all of them
}

// Caller is who sent a request.
type Caller interface {
	// May returns nil where the caller may do it, a *Denied where not, and ErrUnknown, perhaps wrapped, where nobody
	// can tell just now.
	May(ctx context.Context, do Action) error
}

// Denied is an action that the caller may not do.
type Denied struct { //nolint:errname // rest.Denied says it all
	// Reason is shown: a sentence that says what is missing.
	Reason string
	// Unnamed is the same without the namespace, "" where the Reason names none.
	Unnamed string
}

func (d *Denied) Error() string { return d.Reason }

// ErrUnknown says that nobody can tell what the caller may do, since the Kubernetes API is away.
var ErrUnknown = errors.New("the Kubernetes API cannot be asked what the caller may do")

// retryUnknown is when to ask again whether the Kubernetes API is back.
const retryUnknown = 5 * time.Second

// Refusal turns what May returned into the answer; nil stays nil.
func Refusal(err error) *Problem {
	var denied *Denied
	switch {
	case err == nil:
		return nil
	case errors.As(err, &denied):
		return New(http.StatusForbidden, denied.Reason)
	default:
		return New(http.StatusServiceUnavailable, "the Kubernetes API cannot be asked just now what you may do, and "+
			"nothing was done: send this again later").Retry(retryUnknown)
	}
}

// RefusalByID is Refusal to somebody who knows an ID and did not name the namespace that it leads to: nor is it told.
func RefusalByID(err error) *Problem {
	var denied *Denied
	if errors.As(err, &denied) && denied.Unnamed != "" {
		return New(http.StatusForbidden, denied.Unnamed)
	}
	return Refusal(err)
}

// Authenticator tells who sent a request.
type Authenticator interface {
	// Authenticate returns the caller, or the answer to one whom it does not know. It must not read the body.
	Authenticate(r *http.Request) (Caller, *Problem)
}

// Anybody lets everybody do everything.
type Anybody struct{}

// Authenticate knows everybody.
func (a Anybody) Authenticate(*http.Request) (Caller, *Problem) { return a, nil }

// May allows everything.
func (Anybody) May(context.Context, Action) error { return nil }

// nobody sends the requests of open routes.
type nobody struct{}

func (nobody) May(context.Context, Action) error {
	return &Denied{Reason: "whoever shows no credentials may do nothing"}
}
