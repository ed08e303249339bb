// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// outage is what comes twice where Redis is away for longer than leases last: all that was in flight, of all dispatchers.
func outage(times int) int { return times * whole }

// brief is what comes twice where Redis is away for less than leases last: nothing, but for what a busy machine held up,
// at most each tenth time.
func brief(times int) int { return outage(1 + times/10) }

// A Redis whose process dies has given what it acknowledged to the operating system, where its disk keeps up: with either
// setting nothing is lost. TestAMachineThatLosesItsPower has the other cases.
func TestRedisThatIsKilled(t *testing.T) {
	for _, fsync := range []string{"always", "everysec"} {
		t.Run("appendfsync "+fsync, func(t *testing.T) {
			try(t, expectation{redis: []string{"--appendfsync", fsync}, holdsUp: true, duplicates: brief},
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
	// Of more nothing could be accepted. It is no multiple of what a call may take, lest an answer comes just in time.
	const longest = 21 * time.Second
	r := newTrial(t, expectation{holdsUp: true, duplicates: outage})
	var hung time.Duration
	r.run(func(ctx context.Context, r *trial) int {
		begun := time.Now()
		r.must(r.s.Redis.Signal(syscall.SIGSTOP))
		r.pass(min(longest, left(ctx)-2*calm)) // then there is time to go on
		r.must(r.s.Redis.Signal(syscall.SIGCONT))
		hung = time.Since(begun)
		<-ctx.Done()
		return 1
	})
	if r.still < hung-time.Second || r.still > hung+2*time.Second { // what was in hand is sent; then all goes on at once
		r.Errorf("deliveries stopped for %s, while Redis hung for %s", r.still, hung)
	}
}

// Connections end amid calls, also between their execution and the answer.
func TestConnectionsToRedisThatAreCut(t *testing.T) {
	try(t, expectation{}, func(ctx context.Context, r *trial) int {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		ended := int64(0)
		struck := r.every(ctx, 20*time.Millisecond, func(int) {
			n, err := redis.ClientKillByFilter(r.Context(), "TYPE", "normal", "SKIPME", "yes").Result()
			r.must(err)
			ended += n
		})
		r.Logf("%d connections were cut, in %d strikes", ended, struck)
		if ended < int64(struck/2) {
			r.Errorf("only %d connections were there to be cut, in %d strikes", ended, struck)
		}
		return struck
	})
}

func TestARedisThatIsFull(t *testing.T) {
	r := newTrial(t, expectation{duplicates: brief})
	r.run(func(ctx context.Context, r *trial) (full int) {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		r.every(ctx, 2*time.Second, func(n int) {
			limit := "0"
			if n%2 == 0 {
				limit = strconv.FormatInt(used(r.Context(), r), 10)
				full++
			}
			r.must(redis.ConfigSet(r.Context(), "maxmemory", limit).Err())
		})
		r.must(redis.ConfigSet(r.Context(), "maxmemory", "0").Err())
		return full
	})
	r.refused(http.StatusTooManyRequests)
	r.answered("OOM", 1)
}

// refused checks that publishers were answered so.
func (r *trial) refused(status int) {
	r.Helper()
	if r.load.refused[status] == 0 {
		r.Errorf("no event was answered %d: then the fault shows nothing", status)
	}
}

// answered checks that Redis answered with such an error, so often at least.
func (r *trial) answered(code string, least int) {
	r.Helper()
	redis := r.s.Redis.Client()
	defer func() { _ = redis.Close() }()
	text, err := redis.Info(r.Context(), "errorstats").Result()
	r.must(err)
	n := 0
	for line := range strings.Lines(text) {
		if count, found := strings.CutPrefix(line, "errorstat_"+code+":count="); found {
			n, _ = strconv.Atoi(strings.TrimSpace(count))
		}
	}
	r.Logf("Redis answered %s %d times", code, n)
	if n < least {
		r.Errorf("Redis answered %s %d times, the fault takes %d at least", code, n, least)
	}
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
		r.must(redis.ConfigResetStat(r.Context()).Err())
		struck := r.every(ctx, 20*time.Millisecond, func(int) { r.must(redis.ScriptFlush(r.Context()).Err()) })
		r.answered("NOSCRIPT", struck/2) // a script that is new to Redis adds one
		return struck
	})
}

// Somebody else's script holds Redis, which answers BUSY after a while.
func TestARedisThatIsBusy(t *testing.T) {
	r := newTrial(t, expectation{redis: []string{"--busy-reply-threshold", "500"}, holdsUp: true, duplicates: brief})
	r.run(func(ctx context.Context, r *trial) int {
		redis := r.s.Redis.Client()
		defer func() { _ = redis.Close() }()
		return r.every(ctx, 3*time.Second, func(int) {
			held := make(chan struct{})
			go func() {
				defer close(held)
				// Nobody else would end a script that is sent again.
				once := goredis.NewClient(&goredis.Options{Addr: r.s.Redis.Address, MaxRetries: -1, ReadTimeout: -1})
				defer func() { _ = once.Close() }()
				_ = once.Eval(r.Context(), "while true do end", nil).Err() // ends with SCRIPT KILL
			}()
			r.pass(2 * time.Second) // it is busy
			r.eventually("the script is ended", func() error { return redis.ScriptKill(r.Context()).Err() })
			<-held
		})
	})
	r.refused(http.StatusServiceUnavailable)
	r.answered("BUSY", 1)
}
