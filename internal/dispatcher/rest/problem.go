// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"net/http"
	"strconv"
	"time"
)

// Problem is a refusal as in RFC 9457.
type Problem struct {
	Type       string       `json:"type"`
	Title      string       `json:"title"`
	Status     int          `json:"status"`
	Detail     string       `json:"detail"` // a sentence that says what is wrong and what to do
	Errors     []FieldError `json:"errors,omitempty"`
	retryAfter time.Duration
}

// FieldError is what is wrong with a field of the body, or with a parameter.
type FieldError struct {
	Field   string `json:"field"` // with its path, as in retry.max_retries or events[3]
	Message string `json:"message"`
}

// New makes a problem. The detail is shown to the client: no secrets.
func New(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// Invalid is the problem (422) of what breaks the schema; its detail repeats the mistakes. It is nil where there is
// none.
func Invalid(mistakes []FieldError) *Problem {
	if len(mistakes) == 0 {
		return nil
	}
	p := New(http.StatusUnprocessableEntity, "")
	for _, m := range mistakes {
		p.Field(m.Field, m.Message)
	}
	return p
}

// Retry says that the same request may be taken after this time, of at least a second.
func (p *Problem) Retry(after time.Duration) *Problem {
	p.retryAfter = max(after, time.Second)
	return p
}

// Field adds what is wrong with a field. A problem without a detail of its own tells the fields' in it.
func (p *Problem) Field(name, message string) *Problem {
	p.Errors = append(p.Errors, FieldError{name, message})
	return p
}

// Temporary reports whether the same request may be taken later.
func (p *Problem) Temporary() bool {
	return p.retryAfter > 0
}

// maxTold is how many mistakes a detail repeats; errors lists them all.
const maxTold = 3

func (p *Problem) tell() {
	for i, e := range p.Errors {
		if i == maxTold {
			p.Detail += "; and " + strconv.Itoa(len(p.Errors)-i) + " more"
			return
		}
		if i > 0 {
			p.Detail += "; "
		}
		if e.Field != "" {
			p.Detail += e.Field + ": "
		}
		p.Detail += e.Message
	}
}

// Write answers with the problem, and returns its status.
func (p *Problem) Write(w http.ResponseWriter) int {
	if p.Temporary() {
		w.Header().Set("Retry-After", strconv.Itoa(int(p.retryAfter.Seconds())))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	told := *p // it may be shared
	if told.Detail == "" {
		told.tell()
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(Marshal(told))
	return p.Status
}
