// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// freeBody is how large a body may be without regard to others, in bytes; the connections bound those.
	freeBody = 8 << 10
	// maxArriving bounds the larger ones that are arriving at the same time, over all calls, in bytes: any token of the
	// cluster is enough to send some.
	maxArriving = 64 << 20
	retryBody   = 2 * time.Second
)

// arriving is how large the bodies above freeBody may become that are being read just now.
var arriving atomic.Int64

// Read reads a body of JSON, at most limit bytes. The problem is 415, 413, 408 or 400, or 503 where many are arriving.
func Read(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *Problem) {
	var also []string
	if r.Method == http.MethodPatch {
		also = []string{"application/merge-patch+json"}
	}
	if p := CheckType(r.Header, also...); p != nil {
		return nil, p
	}
	if r.ContentLength > limit {
		return nil, TooLarge(limit)
	}
	if room := roomFor(r.ContentLength, limit); room > 0 {
		defer arriving.Add(-room)
		if arriving.Add(room) > maxArriving {
			return nil, New(http.StatusServiceUnavailable,
				"the dispatcher is receiving as many request bodies as it may: send this again later").Retry(retryBody)
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, Unreadable(err, limit)
	}
	return body, nil
}

// roomFor is what a body counts of maxArriving. One whose length is not known may become as large as any.
func roomFor(length, limit int64) int64 {
	switch {
	case length < 0:
		return limit
	case length <= freeBody:
		return 0
	default:
		return length
	}
}

// maxIgnored bounds what is read of a body that says nothing.
const maxIgnored = 4 << 10

// NoBody refuses a body (422): what it asks for would not be done. White space and {} ask for nothing, whatever type
// they are said to have.
func NoBody(w http.ResponseWriter, r *http.Request) *Problem {
	if r.ContentLength == 0 {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxIgnored))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return noneTaken()
	case err != nil:
		return Unreadable(err, maxIgnored)
	}
	if body = bytes.TrimSpace(body); len(body) == 0 {
		return nil
	}
	p := Unmarshal(body, &struct{}{})
	if p != nil && (p.Status != http.StatusUnprocessableEntity || body[0] != '{') {
		return noneTaken()
	}
	return p
}

// WithoutBody is an endpoint behind NoBody.
func WithoutBody(serve Endpoint) Endpoint {
	return func(w http.ResponseWriter, r *Request) int {
		if p := NoBody(w, r.Request); p != nil {
			return p.Write(w)
		}
		return serve(w, r)
	}
}

func noneTaken() *Problem {
	return New(http.StatusUnprocessableEntity, "this call takes no body: send none")
}

// CheckType wants a body of JSON, or of one of the other media types, that is not compressed.
func CheckType(header http.Header, also ...string) *Problem {
	if p := CheckEncoding(header); p != nil {
		return p
	}
	given := header.Get("Content-Type")
	if given == "application/json" {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given)
	charset := parameters["charset"]
	fits := media == "application/json" || slices.Contains(also, media)
	if err == nil && fits && (charset == "" || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	said := "there is no Content-Type header"
	if given != "" {
		said = fmt.Sprintf("the Content-Type header says %.100q", given)
	}
	return New(http.StatusUnsupportedMediaType,
		"the body must be JSON in UTF-8, but "+said+": send Content-Type: application/json")
}

// CheckEncoding wants a body that is not compressed.
func CheckEncoding(header http.Header) *Problem {
	if e := header.Get("Content-Encoding"); e != "" && e != "identity" {
		return New(http.StatusUnsupportedMediaType, "the body must not be compressed: leave out Content-Encoding")
	}
	return nil
}

// TooLarge is the problem of a body above the limit.
func TooLarge(limit int64) *Problem {
	return New(http.StatusRequestEntityTooLarge, fmt.Sprintf(
		"the body is larger than %d bytes: send less at once, or a link to the data in place of the data", limit))
}

// Unreadable is the problem of a body that did not arrive, read through http.MaxBytesReader.
func Unreadable(err error, limit int64) *Problem {
	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return TooLarge(limit)
	case errors.As(err, &network) && network.Timeout():
		return New(http.StatusRequestTimeout, "the body took too long to arrive: send it again")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return New(http.StatusBadRequest, "the body ended early: send it again")
	default:
		return New(http.StatusBadRequest, "the body is malformed: what came is not the chunks that "+
			"Transfer-Encoding: chunked announces")
	}
}
