// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

const (
	// repeatInterval is how often at most the same outcome of a subscription is logged.
	repeatInterval = time.Minute
	// maxRepeats bounds the outcomes that are remembered for it; beyond, they share one.
	maxRepeats = 4096
)

// attemptLog writes one wide line per attempt: successes at debug level, all else at info level, where what repeats
// itself is written once a minute with the number of lines left out.
type attemptLog struct {
	logger *slog.Logger

	mu      sync.Mutex
	repeats map[outcome]*repeat
	swept   time.Time
}

// outcome is what makes a line a repetition of another.
type outcome struct {
	subscriptionID string
	result         queue.Result
	reason         string
}

type repeat struct {
	written time.Time
	left    int // out since then
}

func newAttemptLog(logger *slog.Logger) *attemptLog {
	return &attemptLog{logger: logger, repeats: map[outcome]*repeat{}}
}

func (l *attemptLog) attempt(route *routing.Route, s queue.Settlement) {
	ctx := context.Background()
	if s.Result == queue.Done {
		if l.logger.Enabled(ctx, slog.LevelDebug) {
			l.logger.LogAttrs(ctx, slog.LevelDebug, "Delivered", attributes(route, s)...)
		}
		return
	}
	left, ok := l.due(outcome{s.Lease.SubscriptionID, s.Result, s.Reason}, time.Now())
	if !ok {
		return
	}
	l.logger.LogAttrs(ctx, slog.LevelInfo, "Attempt failed", append(attributes(route, s),
		slog.String("reason", s.Reason), slog.String("error", s.Error),
		slog.Bool("final", s.Result == queue.Fail), slog.Int64("retryInMs", s.RetryAfter.Milliseconds()),
		slog.Int("similarLeftOut", left))...)
}

func attributes(route *routing.Route, s queue.Settlement) []slog.Attr {
	return []slog.Attr{
		slog.String("namespace", route.Namespace), slog.String("name", route.Name),
		slog.String("subscriptionId", s.Lease.SubscriptionID), slog.String("deliveryId", s.Lease.DeliveryID),
		slog.String("eventId", s.Lease.EventID), slog.String("eventType", s.Lease.EventType),
		slog.Int("attempt", s.Lease.Attempt), slog.Int("maxRetries", route.Retry.MaxRetries),
		slog.Int("statusCode", s.StatusCode), slog.Int64("durationMs", s.Duration.Milliseconds()),
	}
}

// staleReason tells stale leases from outcomes of attempts.
const staleReason = "stale_lease"

func (l *attemptLog) stale(lease queue.Lease) {
	left, ok := l.due(outcome{reason: staleReason}, time.Now())
	if !ok {
		return
	}
	l.logger.Warn("Lease ran out before anything was sent; this dispatcher is too slow for what it takes",
		"subscriptionId", lease.SubscriptionID, "deliveryId", lease.DeliveryID, "attempt", lease.Attempt,
		"late", time.Since(lease.Deadline).String(), "similarLeftOut", left)
}

// due tells whether o is to be written, and how many of its kind were left out before.
func (l *attemptLog) due(o outcome, now time.Time) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.repeats[o]
	if r == nil {
		r = l.remember(o, now)
	}
	if now.Sub(r.written) < repeatInterval {
		r.left++
		return 0, false
	}
	left = r.left
	r.written, r.left = now, 0
	return left, true
}

func (l *attemptLog) remember(o outcome, now time.Time) *repeat {
	if len(l.repeats) >= maxRepeats {
		l.sweep(now)
	}
	if len(l.repeats) >= maxRepeats {
		o = outcome{}
	}
	if l.repeats[o] == nil {
		l.repeats[o] = &repeat{}
	}
	return l.repeats[o]
}

// sweep forgets what has not been written for a while, at most once a second: it looks at everything.
func (l *attemptLog) sweep(now time.Time) {
	if now.Sub(l.swept) < time.Second {
		return
	}
	l.swept = now
	for o, r := range l.repeats {
		if now.Sub(r.written) >= repeatInterval {
			delete(l.repeats, o)
		}
	}
}
