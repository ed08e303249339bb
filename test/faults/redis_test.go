// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outage is what comes twice where Redis is away for longer than leases last: all that was in flight.
func outage(times int) int { return times * dispatchers * whole }

// A Redis whose process dies has given what it acknowledged to the operating system, where its disk keeps up: with either
// setting nothing is lost. TestAMachineThatLosesItsPower has the other cases.
func TestRedisThatIsKilled(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run("appendfsync "+fsync, func(t *testing.T) {
			try(t, expectation{redis: []string{"--appendfsync", fsync}, duplicates: outage},
				func(ctx context.Context, r *trial) int {
					return r.every(ctx, 3*time.Second, func(int) {
						r.s.Redis.Kill()
						r.must(r.s.Redis.Restart())
					})
				})
		})
	}
}

func TestRedisThatHangs(t *testing.T) {
	const longest = 20 * time.Second // of more nothing could be accepted
	try(t, expectation{duplicates: outage}, func(ctx context.Context, r *trial) int {
		r.must(r.s.Redis.Signal(syscall.SIGSTOP))
		select {
		case <-ctx.Done():
		case <-time.After(longest):
		}
		r.must(r.s.Redis.Signal(syscall.SIGCONT))
		<-ctx.Done()
		return 1
	})
}

// Connections end amid calls, also between their execution and the answer.
func TestConnectionsToRedisThatAreCut(t *testing.T) {
	try(t, expectation{}, func(ctx context.Context, r *trial) int {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		return r.every(ctx, 20*time.Millisecond, func(int) {
			r.must(redis.ClientKillByFilter(r.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
		})
	})
}

func TestARedisThatIsFull(t *testing.T) {
	try(t, expectation{duplicates: outage}, func(ctx context.Context, r *trial) int {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		full := r.every(ctx, 2*time.Second, func(n int) {
			limit := "0"
			if n%2 == 0 {
				limit = strconv.FormatInt(used(r.Context(), r), 10)
			}
			r.must(redis.ConfigSet(r.Context(), "maxmemory", limit).Err())
		})
		r.must(redis.ConfigSet(r.Context(), "maxmemory", "0").Err())
		return full
	})
}

// used is Redis' memory in bytes.
func used(ctx context.Context, r *trial) int64 {
	redis := r.s.Redis.Client()
	defer func() { _ = redis.Close() }()
	for line := range strings.Lines(redis.Info(ctx, "memory").Val()) {
		if text, found := strings.CutPrefix(line, "used_memory:"); found {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return n
		}
	}
	r.Fatal("Redis does not tell its memory")
	return 0
}

func TestScriptsThatAreFlushed(t *testing.T) {
	try(t, expectation{}, func(ctx context.Context, r *trial) int {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		return r.every(ctx, 20*time.Millisecond, func(int) { r.must(redis.ScriptFlush(r.Context()).Err()) })
	})
}

// Somebody else's script holds Redis, which answers BUSY after a while.
func TestARedisThatIsBusy(t *testing.T) {
	try(t, expectation{redis: []string{"--busy-reply-threshold", "500"}, duplicates: outage},
		func(ctx context.Context, r *trial) int {
			redis := r.s.Redis.Client()
			defer func() { _ = redis.Close() }()
			return r.every(ctx, 3*time.Second, func(int) {
				held := make(chan struct{})
				go func() {
					defer close(held)
					redis := r.s.Redis.Client()
					defer func() { _ = redis.Close() }()
					_ = redis.Eval(r.Context(), "while true do end", nil).Err() // ends with SCRIPT KILL
				}()
				r.pass(2 * time.Second) // it is busy
				r.must(redis.ScriptKill(r.Context()).Err())
				<-held
			})
		})
}
