package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/internal/dispatcher/history"
)

//go:embed scripts/copier.lua
var copierSource string

var copierScript = newScript(library + copierSource)

// Bounds of a step of copying.
const (
	// copyEntries bounds a batch, whose entries have 64 deliveries and some 64 KiB at most.
	copyEntries = 16
	// copyBytes bounds its bodies, unless those of its first entry are more.
	copyBytes = 8 << 20
	// bodiesStep is how many bytes of bodies one command reads, so that others wait for a millisecond at most.
	bodiesStep = 1 << 20
	// copiedStep is how many entries go in one step: about 2 ms, as elsewhere.
	copiedStep = 4
)

// Outbox is what has ended on one shard and waits to be copied elsewhere. It stays until Copied, or until it takes more
// than its part of Options.MaxOutboxBytes.
type Outbox struct{ s *shard }

// Outboxes has one for each shard.
func (q *Queue) Outboxes() []*Outbox {
	all := make([]*Outbox, len(q.shards))
	for i, s := range q.shards {
		all[i] = &Outbox{s}
	}
	return all
}

// Copies is a batch of what waits, from the oldest on.
type Copies struct {
	history.Batch

	Unreadable []error // attempts that are left out, since they are not what a sender wrote
	last       string  // entry
}

// Claim makes this dispatcher the one that copies the shard for so long, or for so long again; 0 gives that back. It is
// false while another one is.
func (o *Outbox) Claim(ctx context.Context, hold time.Duration) (bool, error) {
	reply, err := o.s.q.run(ctx, copierScript, o.s.keys, []any{"", o.s.q.Dispatcher, milliseconds(hold)})
	if err != nil {
		return false, fmt.Errorf("claim the outbox of shard %d: %w", o.s.index, err)
	}
	return number(reply[0]) == 1, nil
}

// Next reads the oldest of what waits, once it is in the history of Redis too.
func (o *Outbox) Next(ctx context.Context) (Copies, error) {
	if err := o.s.file(ctx); err != nil {
		return Copies{}, err
	}
	c, err := o.next(ctx)
	if err != nil {
		return c, fmt.Errorf("read the outbox of shard %d: %w", o.s.index, err)
	}
	return c, nil
}

func (o *Outbox) next(ctx context.Context) (c Copies, err error) {
	filed, err := o.s.q.client.Get(ctx, o.s.keys.prefix+"filed").Result()
	if errors.Is(err, redis.Nil) {
		return c, nil
	}
	if err != nil {
		return c, unavailable(err)
	}
	entries, err := o.s.entries(ctx, "-", filed, copyEntries)
	if err != nil {
		return c, err
	}
	sizes, total := map[string]int{}, 0
	var all []Ended
	for _, entry := range entries {
		ended, unreadable := o.s.parseEntry(entry)
		for i := range ended {
			if at := ended[i].BodyAt; sizes[at.key] == 0 {
				sizes[at.key] = at.Size
				total += at.Size
			}
		}
		if total > copyBytes && len(all) > 0 {
			break
		}
		all, c.last = append(all, ended...), entry.id
		c.Unreadable = append(c.Unreadable, unreadable...)
	}
	return c, o.s.addBodies(ctx, all, &c)
}

func (s *shard) parseEntry(entry endedEntry) (ended []Ended, unreadable []error) {
	for _, field := range entry.ended {
		e, err := s.parseEnded(field.id, field.record, true)
		if err != nil {
			unreadable = append(unreadable, err)
		}
		ended = append(ended, *e)
	}
	return ended, unreadable
}

// addBodies fills a batch with records and their bodies. A body can be missing only where its entry is gone meanwhile.
func (s *shard) addBodies(ctx context.Context, all []Ended, c *Copies) error {
	refs := map[string]history.BodyRef{}
	c.Bodies = map[history.BodyRef][]byte{}
	var wanted []Body
	read := func() error {
		bodies, err := s.q.Bodies(ctx, wanted)
		for i, body := range bodies {
			ref := history.RefOf(body)
			refs[wanted[i].key], c.Bodies[ref] = ref, body
		}
		wanted = nil
		return err
	}
	size := 0
	for i := range all {
		at := all[i].BodyAt
		if _, known := refs[at.key]; known {
			continue
		}
		refs[at.key] = history.BodyRef{}
		if size += at.Size; size > bodiesStep && len(wanted) > 0 {
			if err := read(); err != nil {
				return err
			}
			size = at.Size
		}
		wanted = append(wanted, at)
	}
	if err := read(); err != nil {
		return err
	}
	for i := range all {
		all[i].Body = refs[all[i].BodyAt.key]
		c.Records = append(c.Records, all[i].Record)
	}
	return nil
}

// Copied lets go of what was copied. It may be repeated, also after another dispatcher has copied the same.
func (o *Outbox) Copied(ctx context.Context, c Copies) error {
	for left := int64(1); left > 0; {
		reply, err := o.s.q.run(ctx, copiedScript, o.s.keys, []any{"", c.last, copiedStep})
		if err != nil {
			return fmt.Errorf("let go of what was copied of shard %d: %w", o.s.index, err)
		}
		left = number(reply[1])
	}
	return nil
}

// Backlog is what waits to be copied.
type Backlog struct {
	Age   time.Duration // since the oldest of it ended; 0 where nothing waits
	Bytes int64         // in Redis, each body counted for each delivery of it
	Lost  int64         // deliveries that went uncopied for want of room, ever
}

// Backlog sums up all shards.
func (q *Queue) Backlog(ctx context.Context) (Backlog, error) {
	var all Backlog
	for _, s := range q.shards {
		b, err := s.backlog(ctx)
		if err != nil {
			return all, fmt.Errorf("look at the outbox of shard %d: %w", s.index, err)
		}
		all.Age, all.Bytes, all.Lost = max(all.Age, b.Age), all.Bytes+b.Bytes, all.Lost+b.Lost
	}
	return all, nil
}

func (s *shard) backlog(ctx context.Context) (b Backlog, err error) {
	pipe := s.q.client.Pipeline()
	oldest := pipe.Do(ctx, "XRANGE", s.keys.prefix+"ended", "-", "+", "COUNT", 1)
	totals := pipe.HMGet(ctx, s.keys.totals(), "outbox", "lost")
	now := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return b, unavailable(err)
	}
	b.Bytes, b.Lost = number(totals.Val()[0]), number(totals.Val()[1])
	if entries, _ := oldest.Slice(); len(entries) > 0 {
		entry, _ := entries[0].([]any)
		ms, _, _ := strings.Cut(text(entry[0]), "-")
		b.Age = max(now.Val().Sub(time.UnixMilli(number(ms))), time.Millisecond)
	}
	return b, nil
}

// maxWaiting is how many deliveries of a shard are looked through for one answer: some 20 MB that Redis sends in steps.
const maxWaiting = 50_000

// ErrBehind says that more waits to be copied than can be looked through for one answer.
var ErrBehind = fmt.Errorf("more than %d deliveries that have ended wait to be copied", maxWaiting)

// Waiting returns what has ended, is not copied yet, and is selected, in no order: also what left the history since.
// Of a delivery that ended more than once it is the latest end. ErrBehind says that there is too much to be looked at.
func (q *Queue) Waiting(ctx context.Context, f history.Filter, visible func(namespace string) bool) ([]Ended, error) {
	var all []Ended
	for _, s := range q.shards {
		latest := map[string]endedField{}
		err := s.eachWaiting(ctx, func(field endedField) {
			delete(latest, field.id)
			e, err := s.parseEnded(field.id, field.record, false)
			if err == nil && visible(e.Namespace) && f.Match(&e.Record) {
				latest[field.id] = field
			}
		})
		if err != nil {
			return nil, fmt.Errorf("look through the outbox of shard %d: %w", s.index, err)
		}
		for _, field := range latest {
			e, _ := s.parseEnded(field.id, field.record, true) // what cannot be read of its attempts is left out
			all = append(all, *e)
		}
	}
	return all, nil
}

// FindWaiting returns the latest end of a delivery that is not copied yet, nil if there is none.
func (q *Queue) FindWaiting(ctx context.Context, id string) (*Ended, error) {
	for _, s := range q.shards {
		var found *endedField
		err := s.eachWaiting(ctx, func(field endedField) {
			if field.id == id {
				found = &field
			}
		})
		if err != nil {
			return nil, fmt.Errorf("look through the outbox of shard %d: %w", s.index, err)
		}
		if found != nil {
			return s.parseEnded(id, found.record, true)
		}
	}
	return nil, nil
}

func (s *shard) eachWaiting(ctx context.Context, do func(endedField)) error {
	n, err := s.q.client.XLen(ctx, s.keys.prefix+"ended").Result()
	if err != nil {
		return unavailable(err)
	}
	seen := 0
	for from := "-"; n < maxWaiting; {
		entries, err := s.entries(ctx, from, "+", copyEntries)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			for _, field := range entry.ended {
				do(field)
			}
			seen += len(entry.ended)
			from = "(" + entry.id
		}
		if len(entries) < copyEntries {
			return nil
		}
		if seen > maxWaiting {
			break
		}
	}
	return ErrBehind
}

// endedEntry is one of the stream: the deliveries that one call ended.
type endedEntry struct {
	id    string
	ended []endedField
}

// endedField is one delivery: its id, and its record as the history has it.
type endedField struct{ id, record string }

// entries reads entries of `ended`, in the order of their fields, which a map would not keep.
func (s *shard) entries(ctx context.Context, from, to string, most int) ([]endedEntry, error) {
	reply, err := s.q.client.Do(ctx, "XRANGE", s.keys.prefix+"ended", from, to, "COUNT", most).Slice()
	if err != nil {
		return nil, unavailable(err)
	}
	entries := make([]endedEntry, 0, len(reply))
	for _, item := range reply {
		parts, _ := item.([]any)
		fields, _ := parts[1].([]any)
		entry := endedEntry{id: text(parts[0])}
		for i := 0; i+1 < len(fields); i += 2 {
			id, head := splitEnded(text(fields[i]))
			entry.ended = append(entry.ended, endedField{id, head + "\n" + text(fields[i+1])})
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// splitEnded divides a field of `ended`, as scripts/lib.lua has it, into the delivery and its record.
func splitEnded(field string) (id, head string) {
	_, field, _ = strings.Cut(field, "|") // the delivery's place among those of its subscription
	id, head, _ = strings.Cut(field, "|")
	return id, head
}

// Superseded tells which of these deliveries that have ended are in the queue or in its history anew: what that says of
// them stands.
func (q *Queue) Superseded(ctx context.Context, records []history.Record) (map[string]bool, error) {
	if len(records) == 0 {
		return nil, nil
	}
	pipe := q.client.Pipeline()
	open, past := make([]*redis.BoolCmd, len(records)), make([]*redis.BoolCmd, len(records))
	for i := range records {
		s := q.shards[shardOf(records[i].SubscriptionID, len(q.shards))]
		open[i] = pipe.HExists(ctx, s.keys.deliveries(), records[i].ID)
		past[i] = pipe.HExists(ctx, s.pastKey(bucketOf(records[i].ID)), records[i].ID)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("look for %d deliveries: %w", len(records), unavailable(err))
	}
	superseded := map[string]bool{}
	for i := range records {
		superseded[records[i].ID] = open[i].Val() || past[i].Val()
	}
	return superseded, nil
}
