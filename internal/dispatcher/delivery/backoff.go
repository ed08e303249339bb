// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"hash/maphash"
	"math"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// jitterShare is the part of a delay by which jitter may lengthen it, so that deliveries which failed together do not
// come back together.
const jitterShare = 0.1

// Backoff is the delay after a number of failures in a row (from 1): the initial delay, doubled with each failure, at
// most the maximum, and up to a tenth more by jitter (in [0, 1]), never less. Before the first failure it is 0.
func Backoff(retry routing.Retry, failures int, jitter float64) time.Duration {
	if failures < 1 {
		return 0
	}
	delay := min(max(retry.InitialDelay, 0), retry.MaxDelay)
	for ; failures > 1 && 0 < delay && delay < retry.MaxDelay; failures-- {
		if delay > retry.MaxDelay/2 {
			delay = retry.MaxDelay // before it can overflow
			break
		}
		delay *= 2
	}
	extra := time.Duration(float64(delay) * jitterShare * min(max(jitter, 0), 1))
	return delay + min(extra, math.MaxInt64-delay)
}

var jitterSeed = maphash.MakeSeed()

// jitterOf spreads deliveries over [0, 1).
func jitterOf(deliveryID string) float64 {
	return float64(maphash.String(jitterSeed, deliveryID)>>11) / (1 << 53)
}

// transit is for how long a request that was written may be on its way, through buffers, the network and a busy
// endpoint. After that, or once it was answered, it is charged to the rate limit: charged when it is written, one that
// came late would have come within 60 s of the one that gets its place next.
const transit = time.Second

// settlementOf says what becomes of a lease after an attempt. An endpoint's wish for a longer delay is granted up to
// the maximum. A retry beyond the budget is the end, unless it was ours to cut the attempt off.
func settlementOf(lease queue.Lease, retry routing.Retry, e Exchange, jitter float64) queue.Settlement {
	verdict, failures := Classify(e), lease.Attempt-lease.Base
	s := queue.Settlement{
		Lease:      lease,
		Result:     verdict.Result,
		ArrivedAgo: max(0, e.SentAgo-transit),
		Duration:   e.Duration,
		StatusCode: e.StatusCode,
		Reason:     string(verdict.Reason),
		Error:      describe(e, verdict.Reason),
	}
	switch verdict.Result {
	case queue.Retry:
		if failures > retry.MaxRetries && verdict.Reason != ReasonShutdown {
			s.Result = queue.Fail
			break
		}
		s.RetryAfter = max(Backoff(retry, failures, jitter), min(verdict.RetryAfter, retry.MaxDelay))
	case queue.Release:
		s.RetryAfter = verdict.RetryAfter
	case queue.Done, queue.Fail:
	}
	return s
}
