// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"nexus.io/webhooks/internal/dispatcher/queue"
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

// freeBytes is what a request may hold without asking, and what an exchange may keep for the next request.
const freeBytes = 64 << 10

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
	if cap(x.request)+cap(x.bodies)+cap(x.answer) > 3*freeBytes || cap(x.entries) > 128 {
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
func (h *handler) read(w http.ResponseWriter, r *http.Request, x *exchange, limit int64) *problem {
	if p := checkEncoding(r.Header); p != nil {
		return p
	}
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	for {
		if len(x.request) == cap(x.request) && !h.grow(x) {
			return newProblem(http.StatusServiceUnavailable,
				"the dispatcher holds as many request bodies as it may: send this again later").retry(retryUnready)
		}
		n, err := body.Read(x.request[len(x.request):cap(x.request)])
		x.request = x.request[:len(x.request)+n]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		default:
			return unreadable(err, limit)
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

func unreadable(err error, limit int64) *problem {
	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return tooLarge(limit)
	case errors.As(err, &network) && network.Timeout():
		return newProblem(http.StatusRequestTimeout, "the body took too long to arrive: send it again")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return newProblem(http.StatusBadRequest, "the body ended early: send it again")
	default:
		return newProblem(http.StatusBadRequest, "the body is malformed: what came is not the chunks that "+
			"Transfer-Encoding: chunked announces")
	}
}

func tooLarge(limit int64) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf(
		"the body is larger than %d bytes: send less at once, or a link to the data in place of the data", limit))
}

// checkEncoding wants JSON that is not compressed.
func checkEncoding(header http.Header) *problem {
	if e := header.Get("Content-Encoding"); e != "" && e != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "the body must not be compressed: leave out Content-Encoding")
	}
	given := header.Get("Content-Type")
	if given == "application/json" {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given)
	charset := parameters["charset"]
	if err == nil && media == "application/json" && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	said := "there is no Content-Type header"
	if given != "" {
		said = fmt.Sprintf("the Content-Type header says %.100q", given)
	}
	return newProblem(http.StatusUnsupportedMediaType,
		"the body must be JSON in UTF-8, but "+said+": send Content-Type: application/json")
}
