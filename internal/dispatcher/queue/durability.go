package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Durability is what Publish waits for before it returns.
type Durability string

// Kinds of it.
const (
	ByRedis   Durability = "redis"   // Redis has it; what that is worth is a matter of Redis' settings
	ByReplica Durability = "replica" // and a replica has received it
	ByDisk    Durability = "disk"    // and Redis has it on its disk
)

const (
	// confirmWait is how long Redis may take to have on a replica or on disk what it has in memory. With appendfsync
	// everysec a disk takes up to two seconds. It is below callTimeout, so that Redis' answer comes and not a timeout,
	// and twice it (a publisher may wait for the one before, too) is below what publishers commonly wait.
	confirmWait = 2500 * time.Millisecond
	// probeAfter is between two looks whether a replica or the disk is there again.
	probeAfter = 200 * time.Millisecond
	probeWait  = 500 * time.Millisecond
)

// command is what waits for it behind a write on the same connection, nil where nothing is to be waited for.
func (d Durability) command(wait time.Duration) []any {
	switch d {
	case ByReplica:
		return []any{"WAIT", 1, wait.Milliseconds()}
	case ByDisk:
		return []any{"WAITAOF", 1, 0, wait.Milliseconds()}
	case ByRedis:
	}
	return nil
}

// refusal says that Redis has an event, perhaps, and that it might not outlast Redis.
func (d Durability) refusal() error {
	if d == ByDisk {
		return fmt.Errorf("%w: Redis does not bring its log to its disk in time", errNotDurable)
	}
	return fmt.Errorf("%w: no replica of Redis receives in time", errNotDurable)
}

var errNotDurable = fmt.Errorf("%w: what is accepted would not be durable", ErrUnavailable)

var errElsewhere = fmt.Errorf("%w: another Redis has taken over, which may not have the event", ErrUnavailable)

// unconfirmed are publications that Redis has taken and whose publishers wait, of some calls in a row.
type unconfirmed struct {
	calls       []*publishCall
	first, last int64 // numbers of the publish calls
	// doubt is why the latest were not confirmed. Until a look finds that they would be, events are refused at once: they
	// would be queued, refused, and come again.
	doubt error
	ended bool
}

// accepted ends calls that Redis answered, or has them wait until what Redis took is durable.
func (s *shard) accepted(calls []*publishCall) {
	var waiting []*publishCall
	for _, c := range calls {
		if s.q.Durability != ByRedis && (c.outcome == Queued || c.outcome == Duplicate) {
			waiting = append(waiting, c)
			continue
		}
		c.end(nil)
	}
	if len(waiting) == 0 {
		return
	}
	s.mu.Lock()
	if len(s.unconfirmed.calls) == 0 {
		s.unconfirmed.first = s.calls
	}
	s.unconfirmed.last = s.calls
	s.unconfirmed.calls = append(s.unconfirmed.calls, waiting...)
	s.mu.Unlock()
	s.confirmSoon()
}

// doubtful is why an event would not be accepted, although its first part would be: another goes to a shard in doubt.
// It would be queued, refused, and come again.
func (q *Queue) doubtful(p *Publication) error {
	if q.Durability == ByRedis || len(q.shards) == 1 {
		return nil
	}
	for _, t := range p.Targets {
		s := q.shards[shardOf(t.SubscriptionID, len(q.shards))]
		s.mu.Lock()
		doubt := s.unconfirmed.doubt
		s.mu.Unlock()
		if doubt != nil {
			return doubt
		}
	}
	return nil
}

func (s *shard) confirmSoon() {
	select {
	case s.confirm <- struct{}{}:
	default:
	}
}

// startConfirming confirms beside the round trips, which go on meanwhile, so that deliveries do not wait for a replica
// or a disk. One wait serves all that was published until it begins. What it returns ends it, once the last are
// confirmed.
func (s *shard) startConfirming(ctx context.Context) (end func()) {
	var running sync.WaitGroup
	running.Go(func() {
		for range s.confirm {
			if s.confirmThose(ctx) {
				return
			}
		}
	})
	return func() {
		s.mu.Lock()
		s.unconfirmed.ended = true
		s.mu.Unlock()
		s.confirmSoon()
		running.Wait()
	}
}

// confirmThose ends the calls that wait, and returns whether they were the last.
func (s *shard) confirmThose(ctx context.Context) (ended bool) {
	s.mu.Lock()
	these := s.unconfirmed
	s.unconfirmed.calls = nil
	s.mu.Unlock()
	if len(these.calls) > 0 {
		err := s.outlasts(ctx, these.first, these.last, confirmWait)
		s.doubt(err) // before anybody hears of it, and publishes again
		for _, c := range these.calls {
			c.end(err)
		}
	} else if these.doubt != nil && !these.ended {
		s.doubt(s.outlasts(ctx, 0, 0, probeWait))
	}
	return these.ended
}

// doubt notes whether the latest publications were confirmed, and has it looked at again where not.
func (s *shard) doubt(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errElsewhere) {
		err = nil // the one that has taken over is there
	}
	before, now := errors.Is(s.unconfirmed.doubt, errNotDurable), errors.Is(err, errNotDurable)
	switch {
	case now && !before: // of a Redis that does not answer, the round trips tell
		s.log.Error("What is accepted would not be durable; events are refused", "durability", s.q.Durability, "error", err)
	case before && err == nil:
		s.log.Info("What is accepted is durable again", "durability", s.q.Durability)
	}
	s.unconfirmed.doubt = err
	if err != nil && !s.unconfirmed.ended {
		time.AfterFunc(probeAfter, s.confirmSoon)
	}
}

// outlasts returns nil once these publish calls are as durable as is asked for.
//
// The wait is on one connection behind a write that looks whether the calls are there. After a failover, the new master
// would else confirm what it never had.
func (s *shard) outlasts(ctx context.Context, first, last int64, wait time.Duration) error {
	there, held, err := s.waitFor(ctx, first, last, wait)
	if broken(err) {
		there, held, err = s.waitFor(ctx, first, last, wait)
	}
	switch {
	case err != nil:
		return unavailable(err)
	case !there:
		return errElsewhere
	case !held:
		return s.q.Durability.refusal()
	default:
		return nil
	}
}

func (s *shard) waitFor(ctx context.Context, first, last int64, wait time.Duration) (there, held bool, err error) {
	node, err := s.q.node(ctx, s.keys)
	if err != nil {
		return false, false, err
	}
	pipe := node.Pipeline()
	// With its source, which is short: what follows must not run ahead of a script that is unknown.
	look := pipe.Eval(ctx, confirmSource, s.keys.declared(), s.q.instance, first, last, milliseconds(callMemory))
	waited := pipe.Do(ctx, s.q.Durability.command(wait)...)
	if err := execute(ctx, pipe); err != nil {
		s.q.elsewhere(ctx, err)
		return false, false, err
	}
	found, err := look.Int64()
	return found == 1, confirmed(waited) > 0, err
}

// confirmed reads how many replicas, or how many disks, have it.
func confirmed(waited *redis.Cmd) int64 {
	switch reply := waited.Val().(type) {
	case int64:
		return reply
	case []any: // WAITAOF: the own disk, those of replicas
		if len(reply) > 0 {
			return number(reply[0])
		}
	}
	return 0
}

// check finds what keeps a server from being as durable as is asked for. That no replica is connected does not keep a
// dispatcher from starting: it may be so for as long as a failover takes, and events are refused meanwhile.
func (d Durability) check(ctx context.Context, server redis.Cmdable, info map[string]string) ([]Finding, error) {
	command := d.command(time.Millisecond)
	if command == nil {
		return nil, nil
	}
	if d == ByDisk && info["aof_enabled"] == "0" {
		return []Finding{{"appendonly is off, so that --durability=disk cannot be had: set appendonly yes", true}}, nil
	}
	pipe := server.Pipeline()
	pipe.Do(ctx, command...)
	err := execute(ctx, pipe)
	if redis.HasErrorPrefix(err, "unknown command") || redis.HasErrorPrefix(err, "NOPERM") {
		return []Finding{{fmt.Sprintf("it refuses %s, which --durability=%s rests on (%s): WAITAOF takes Redis 7.2, WAIT "+
			"any; use such a server, allow the command, or choose another durability", command[0], d, err), true}}, nil
	}
	if err != nil {
		return nil, err
	}
	if d == ByDisk {
		return checkDisk(ctx, server), nil
	}
	var findings []Finding
	if info["connected_slaves"] == "0" {
		findings = append(findings,
			Finding{"no replica is connected: with --durability=replica events are refused until one is", false})
	}
	if info["aof_enabled"] == "0" {
		findings = append(findings, Finding{"appendonly is off: a master that comes back before a replica has taken over " +
			"has nothing, and its replicas then drop what --durability=replica waited for; set appendonly yes", false})
	}
	return findings, nil
}

// checkDisk warns of servers (Redis 7.4, Valkey 8.0) that answer WAITAOF before the disk has what was written, unless
// each write goes there at once. Which are mended their versions do not tell. A server may not say how it is set.
func checkDisk(ctx context.Context, server redis.Cmdable) []Finding {
	if server.ConfigGet(ctx, "appendfsync").Val()["appendfsync"] != "everysec" {
		return nil
	}
	return []Finding{{"appendfsync is everysec, with which Redis 7.4 and Valkey 8.0 answer WAITAOF up to a second too " +
		"early: for --durability=disk set appendfsync always", false}}
}
