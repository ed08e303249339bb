// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// exchange holds what one request needs; exchanges are used again.
type exchange struct {
	request      []byte // its body
	bodies       []byte // of the publications under way
	answer       []byte
	entries      []entry
	publications []queue.Publication
	reserved     int64 // bytes taken from the budget
}

const (
	// freeBytes is what a request's body may hold without asking: 2,000 connections may have as many of them.
	freeBytes = 8 << 10
	// keptBytes is what each part of an exchange may keep for the next request.
	keptBytes = 64 << 10
)

func (h *handler) exchange() *exchange {
	if x, ok := h.exchanges.Get().(*exchange); ok {
		return x
	}
	return &exchange{request: make([]byte, 0, 4<<10), bodies: make([]byte, 0, 4<<10)}
}

// release ends an exchange: nothing that it holds may be used afterwards.
func (h *handler) release(x *exchange) {
	h.buffered.give(x.reserved)
	x.reserved = 0
	if cap(x.request)+cap(x.bodies)+cap(x.answer) > 3*keptBytes || cap(x.entries) > 128 {
		return
	}
	clear(x.entries)
	clear(x.publications)
	x.request, x.bodies, x.answer = x.request[:0], x.bodies[:0], x.answer[:0]
	x.entries, x.publications = x.entries[:0], x.publications[:0]
	h.exchanges.Put(x)
}

// budget bounds the bytes that are held at the same time.
type budget struct{ held atomic.Int64 }

func (b *budget) take(n, most int64) bool {
	if b.held.Add(n) <= most {
		return true
	}
	b.held.Add(-n)
	return false
}

func (b *budget) give(n int64) {
	if n > 0 {
		b.held.Add(-n)
	}
}

// read reads the body into x.request, at most limit bytes. Memory follows what arrives, not what was announced.
func (h *handler) read(w http.ResponseWriter, r *http.Request, x *exchange, limit int64) *rest.Problem {
	if p := rest.CheckType(r.Header); p != nil {
		return p
	}
	if r.ContentLength > limit {
		return rest.TooLarge(limit)
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	for {
		if len(x.request) == cap(x.request) && !h.grow(x) {
			return rest.New(http.StatusServiceUnavailable,
				"the dispatcher holds as many request bodies as it may: send this again later").Retry(retryUnready)
		}
		n, err := body.Read(x.request[len(x.request):cap(x.request)])
		x.request = x.request[:len(x.request)+n]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		default:
			return rest.Unreadable(err, limit)
		}
	}
}

// grow doubles the room for the body, and takes what is above freeBytes from the budget.
func (h *handler) grow(x *exchange) bool {
	more := int64(max(cap(x.request), 4<<10))
	if cap(x.request) >= freeBytes {
		if !h.buffered.take(more, h.Limits.MaxBufferedBytes) {
			return false
		}
		x.reserved += more
	}
	x.request = slices.Grow(x.request, int(more))
	return true
}
