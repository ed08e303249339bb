// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"nexus.io/webhooks/internal/event"
)

// problem is a refusal as in RFC 9457. Its detail says what is wrong and what to do.
type problem struct {
	Type       string       `json:"type"`
	Title      string       `json:"title"`
	Status     int          `json:"status"`
	Detail     string       `json:"detail"`
	Errors     []fieldError `json:"errors,omitempty"`
	retryAfter time.Duration
}

type fieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func newProblem(status int, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

func (p *problem) retry(after time.Duration) *problem {
	p.retryAfter = after
	return p
}

// temporary reports whether the same request may be taken later.
func (p *problem) temporary() bool {
	return p.retryAfter > 0
}

func (p *problem) write(w http.ResponseWriter) int {
	if p.temporary() {
		w.Header().Set("Retry-After", strconv.Itoa(int(p.retryAfter.Seconds())))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(marshal(p))
	return p.Status
}

// marshal writes JSON for people: <, > and & stay as they are.
func marshal(v any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return []byte("{}") // not reached: v is strings and numbers
	}
	return bytes.TrimRight(buffer.Bytes(), "\n")
}

// refusal translates what is wrong with a body.
func refusal(err error) *problem {
	var wrong *event.InvalidError
	var many *event.TooManyError
	switch {
	case errors.As(err, &wrong):
		p := newProblem(http.StatusUnprocessableEntity, wrong.Error())
		for _, f := range wrong.Fields {
			p.Errors = append(p.Errors, fieldError(f))
		}
		return p
	case errors.As(err, &many):
		return newProblem(http.StatusRequestEntityTooLarge, many.Error())
	default:
		return newProblem(http.StatusBadRequest, "the body is "+err.Error())
	}
}
