// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// call is a request with the time until which the last byte of its answer must be there.
type call struct {
	*http.Request
	deadline time.Time // the zero time is none
	shares   bool      // its context with many others, which may end before the deadline
}

func callOf(req *http.Request) call {
	deadline, _ := req.Context().Deadline()
	return call{Request: req, deadline: deadline}
}

func callBefore(req *http.Request, deadline time.Time) call {
	return call{Request: req, deadline: deadline, shares: true}
}

// context returns one that ends with the call.
func (c call) context() (context.Context, context.CancelFunc) {
	if !c.shares || c.deadline.IsZero() {
		return c.Context(), func() {}
	}
	return context.WithDeadline(c.Context(), c.deadline)
}

// explain says why an exchange broke off: because its context ended or its time was up, where that is why.
func (c call) explain(err error) error {
	ended := c.Context().Err()
	if ended == nil && !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
		ended = context.DeadlineExceeded
	}
	if ended != nil {
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

// watch makes the connection end with the call.
func (c *conn) watch(call call) error {
	if err := c.SetDeadline(call.deadline); err != nil {
		return err
	}
	ctx := call.Context()
	if c.release == nil {
		c.release = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		c.watched = ctx.Done()
	}
	return ctx.Err() // what a watch that ran before has set is overwritten
}

// turnTo makes a kept connection ready for a call, or tells that it cannot be used: the watch over another context must
// have ended before the exchange begins, since one that just runs would cut that off.
func (c *conn) turnTo(next call) bool {
	return next.shares && next.Context().Done() == c.watched || c.unwatch()
}

// rest makes a connection ready to be kept after a call, or tells that it cannot be. The watch over a context that many
// share goes on: to begin it anew each time takes a lock that they share too.
func (c *conn) rest(after call) bool {
	if after.shares {
		return after.Context().Err() == nil
	}
	return c.unwatch()
}

// unwatch ends the watch, and tells whether that was in time.
func (c *conn) unwatch() bool {
	release := c.release
	c.release, c.watched = nil, nil
	return release == nil || release()
}

// boundedBody is the body of an answer that came within the time of a context of its own.
type boundedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *boundedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
