// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"errors"
	"fmt"
)

// maxBatchDepth bounds the nesting of a batch as a whole. It is far above MaxDepth, so that one event that is too deep
// is refused by Parse alone and does not spoil the others.
const maxBatchDepth = 10_000

// TooManyError says that a batch has more events than allowed.
type TooManyError struct {
	Limit int
}

// Error says the limit and what to do.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("a batch may hold at most %d events: send it in parts", e.Limit)
}

// SplitBatch returns the texts of the events of a batch, which is an array or {"events": […]}, without looking into
// them but for the grammar. They share the memory of raw. The errors are *SyntaxError, *InvalidError for JSON of
// another shape, and *TooManyError beyond limit.
func SplitBatch(raw []byte, limit int) ([]json.RawMessage, error) {
	if err := checkUTF8(raw); err != nil {
		return nil, err
	}
	s := splitter{scanner: scanner{in: raw, maxDepth: maxBatchDepth}, limit: limit}
	events, err := s.batch()
	if errors.Is(err, errTooDeep) {
		return nil, invalid("", fmt.Sprintf("a batch may be nested at most %d levels deep", maxBatchDepth))
	}
	if err != nil {
		return nil, err
	}
	return events, s.end()
}

type splitter struct {
	scanner
	limit int
}

func (s *splitter) batch() ([]json.RawMessage, error) {
	switch c := s.peek(); c {
	case '[':
		return s.events(0)
	case '{':
		return s.wrapped()
	default:
		if err := s.skip(c, 0); err != nil {
			return nil, err
		}
		return nil, errNotBatch()
	}
}

func errNotBatch() error {
	return invalid("", `a batch must be an array of events, or {"events": […]}`)
}

// wrapped reads {"events": […]}.
func (s *splitter) wrapped() (events []json.RawMessage, err error) {
	s.pos++
	for first := true; ; first = false {
		token, more, err := s.key(first)
		if err != nil {
			return nil, err
		}
		if !more && events == nil {
			return nil, invalid("events", "is required")
		}
		if !more {
			return events, nil
		}
		if err := checkWrapper(string(plainName(token)), events != nil); err != nil {
			return nil, err
		}
		if s.peek() != '[' {
			return nil, invalid("events", "must be an array")
		}
		if events, err = s.events(1); err != nil {
			return nil, err
		}
	}
}

func checkWrapper(name string, seen bool) error {
	if name != "events" {
		return invalid(shorten(name), `is not a field of a batch, which is an array of events, or {"events": […]}`)
	}
	if seen {
		return invalid("events", "is given twice")
	}
	return nil
}

// events reads an array, with depth levels around it. It never returns nil without an error.
func (s *splitter) events(depth int) ([]json.RawMessage, error) {
	if err := s.open(depth + 1); err != nil {
		return nil, err
	}
	events := []json.RawMessage{}
	for first := true; ; first = false {
		more, err := s.element(first)
		if err != nil {
			return nil, err
		}
		if !more {
			return events, nil
		}
		if len(events) == s.limit {
			return nil, &TooManyError{Limit: s.limit}
		}
		value, err := s.value(depth + 1)
		if err != nil {
			return nil, err
		}
		events = append(events, value)
	}
}
