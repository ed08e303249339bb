package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Bounds of a read.
const (
	// MaxListed is how many unfinished deliveries are listed at most, some 30 MB.
	MaxListed = 100_000
	// maxWalks is how many look through the unfinished deliveries at once: each keeps Redis half busy meanwhile.
	maxWalks = 2
	scanStep = 1000
	// maxScanned is how many records one page looks at, so that a filter which hardly anything passes ends early.
	maxScanned = 20_000
	readStep   = 200
)

// Unfinished is a delivery that waits or is in flight.
type Unfinished struct {
	ID, SubscriptionID, EventID, EventType string

	Attempts  int // that failed
	CreatedAt time.Time
	// DueAt is when the next attempt may start; zero for one that waits for its turn or is in flight.
	DueAt time.Time
	Body  Body
}

// Body says where the body of a delivery is, and how large it is; see Queue.Bodies.
type Body struct {
	Size  int // bytes, with the event's type
	shard int
	key   string
}

// Selection selects unfinished deliveries.
type Selection struct {
	SubscriptionID string // "": of all
	// Takes tells whether one is wanted; it does not know yet when that is due. nil: every one.
	Takes func(*Unfinished) bool
	// Newest is how many of these are listed, by their ids. 0: all, of which there may be MaxListed.
	Newest int
}

// ErrTooMany says that there is more than can be listed.
var ErrTooMany = fmt.Errorf("more than %d deliveries are unfinished", MaxListed)

// Unfinished lists unfinished deliveries, in no order. It walks over all that there are, in steps, and waits where
// others do so. Errors wrap ErrTooMany, ErrUnavailable or that of ctx.
func (q *Queue) Unfinished(ctx context.Context, sel Selection) ([]Unfinished, error) {
	select {
	case q.walks <- struct{}{}:
		defer func() { <-q.walks }()
	case <-ctx.Done():
		return nil, fmt.Errorf("list unfinished deliveries: %w", ctx.Err())
	}
	var all []Unfinished
	for _, s := range q.shards {
		if sel.SubscriptionID != "" && s.index != shardOf(sel.SubscriptionID, len(q.shards)) {
			continue
		}
		part, err := s.unfinished(ctx, &sel)
		if err != nil {
			return nil, fmt.Errorf("list unfinished deliveries: %w", err)
		}
		all = append(all, part...)
	}
	if sel.Newest == 0 && len(all) > MaxListed {
		return nil, fmt.Errorf("list unfinished deliveries: %w", ErrTooMany)
	}
	return newest(all, cmp.Or(sel.Newest, MaxListed)), nil
}

func (s *shard) unfinished(ctx context.Context, sel *Selection) ([]Unfinished, error) {
	most := cmp.Or(sel.Newest, MaxListed+1)
	var all []Unfinished
	err := s.eachUnfinished(ctx, func(d *Unfinished) (more bool) {
		if sel.SubscriptionID != "" && sel.SubscriptionID != d.SubscriptionID || sel.Takes != nil && !sel.Takes(d) {
			return true
		}
		if all = append(all, *d); len(all) >= 2*most+scanStep {
			all = newest(all, most)
			return sel.Newest > 0 || len(all) < most
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	all = newest(all, most)
	return all, s.addDueTimes(ctx, all)
}

// newest are the deliveries with the greatest ids, each once.
func newest(all []Unfinished, most int) []Unfinished {
	slices.SortFunc(all, func(a, b Unfinished) int { return cmp.Compare(b.ID, a.ID) })
	all = slices.CompactFunc(all, func(a, b Unfinished) bool { return a.ID == b.ID })
	return all[:min(len(all), most)]
}

// eachUnfinished calls do with each unfinished delivery, some perhaps twice, without the times at which they are due,
// until it returns false.
func (s *shard) eachUnfinished(ctx context.Context, do func(*Unfinished) (more bool)) error {
	for cursor := uint64(0); ; {
		page, next, err := s.q.client.HScan(ctx, s.keys.deliveries(), cursor, "", scanStep).Result()
		if err != nil {
			return unavailable(err)
		}
		for i := 0; i+1 < len(page); i += 2 {
			if d := s.parseUnfinished(page[i], page[i+1]); !do(&d) {
				return nil
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (s *shard) parseUnfinished(id, record string) Unfinished {
	sub, attempts, size, _, eventType, key := splitRecord(record)
	made := history.Record{ID: id} // what was retried has a later time in its record
	d := Unfinished{
		ID: id, SubscriptionID: sub, EventID: eventOf(key), EventType: eventType, Attempts: attempts,
		CreatedAt: made.CreatedAt(), Body: Body{shard: s.index, key: key},
	}
	d.Body.Size, _ = strconv.Atoi(size)
	return d
}

// splitRecord reads sub|attempts:more|created|size|type|event.
func splitRecord(record string) (sub string, attempts int, size, created, eventType, key string) {
	fields := strings.SplitN(record, "|", 6)
	for len(fields) < 6 {
		fields = append(fields, "")
	}
	made, _, _ := strings.Cut(fields[1], ":")
	attempts, _ = strconv.Atoi(made)
	return fields[0], attempts, fields[3], fields[2], fields[4], fields[5]
}

// eventOf is the event's id in the key of its payload.
func eventOf(key string) string {
	id, _, _ := strings.Cut(key, "#")
	return id
}

func (s *shard) addDueTimes(ctx context.Context, all []Unfinished) error {
	bySub := map[string][]int{}
	for i := range all {
		bySub[all[i].SubscriptionID] = append(bySub[all[i].SubscriptionID], i)
	}
	for sub, places := range bySub {
		for part := range slices.Chunk(places, scanStep) {
			ids := make([]string, len(part))
			for n, i := range part {
				ids[n] = all[i].ID
			}
			scores, err := s.q.client.ZMScore(ctx, s.keys.prefix+"due:"+sub, ids...).Result()
			if err != nil {
				return unavailable(err)
			}
			for n, i := range part {
				if scores[n] > 0 {
					all[i].DueAt = time.UnixMilli(int64(scores[n])).UTC()
				}
			}
		}
	}
	return nil
}

// Ended is a delivery of the history.
type Ended struct {
	history.Record
	BodyAt Body
}

// Find returns a delivery with its attempts: one that is unfinished, whose record has neither status nor end, or one
// that has ended. Both are nil where there is none, or no longer.
func (q *Queue) Find(ctx context.Context, id string) (*Unfinished, *Ended, error) {
	for _, s := range q.shards {
		open, ended, err := s.find(ctx, id)
		if err != nil {
			return nil, nil, fmt.Errorf("find delivery %s: %w", id, err)
		}
		if open != nil || ended != nil {
			return open, ended, nil
		}
	}
	return nil, nil, nil
}

func (s *shard) find(ctx context.Context, id string) (*Unfinished, *Ended, error) {
	pipe := s.q.client.TxPipeline()
	record := pipe.HGet(ctx, s.keys.deliveries(), id)
	tries := pipe.LRange(ctx, s.keys.prefix+"tries:"+id, 0, -1)
	_ = execute(ctx, pipe) // each command carries its own error
	if err := record.Err(); err == nil {
		found := []Unfinished{s.parseUnfinished(id, record.Val())}
		if err := s.addDueTimes(ctx, found); err != nil {
			return nil, nil, err
		}
		ended := &Ended{BodyAt: found[0].Body}
		ended.ID, ended.EventType = id, found[0].EventType
		return &found[0], ended, readTries(strings.Join(tries.Val(), ""), &ended.Record)
	} else if err != redis.Nil { //nolint:errorlint // as the client gives it
		return nil, nil, unavailable(err)
	}
	if err := s.file(ctx); err != nil {
		return nil, nil, err
	}
	value, err := s.q.client.HGet(ctx, s.pastKey(bucketOf(id)), id).Result()
	if err == redis.Nil { //nolint:errorlint // as the client gives it
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, unavailable(err)
	}
	ended, err := s.parseEnded(id, value, true)
	return nil, ended, err
}

// LastAttempts reads the latest attempt of each of these deliveries, in order; nil where the queue keeps none, since
// there was none yet or no room.
func (q *Queue) LastAttempts(ctx context.Context, deliveries []*Unfinished) ([]*history.Record, error) {
	records := make([]*history.Record, len(deliveries))
	commands := make([]*redis.StringCmd, len(deliveries))
	pipe := q.client.Pipeline()
	for i, d := range deliveries {
		if d.Attempts > 0 {
			commands[i] = pipe.LIndex(ctx, q.shards[d.Body.shard].keys.prefix+"tries:"+d.ID, -1)
		}
	}
	_ = execute(ctx, pipe) // each command carries its own error
	for i, command := range commands {
		if command == nil || command.Err() == redis.Nil { //nolint:errorlint // as the client gives it
			continue
		}
		if err := command.Err(); err != nil {
			return nil, fmt.Errorf("read the last attempt of delivery %s: %w", deliveries[i].ID, unavailable(err))
		}
		records[i] = &history.Record{ID: deliveries[i].ID, EventType: deliveries[i].EventType}
		if err := readTries(command.Val(), records[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func readTries(tries string, r *history.Record) error {
	if err := history.ReadAttempts([]byte(tries), r); err != nil {
		return fmt.Errorf("read the attempts of delivery %s: %w", r.ID, err)
	}
	return nil
}

func (s *shard) pastKey(bucket string) string { return s.keys.prefix + "past:" + bucket }

// bucketOf is as in scripts/lib.lua.
func bucketOf(id string) string { return id[:min(len(id), 10)] }

// statuses of a record's outcome.
var statuses = map[string]history.Status{"s": history.Success, "f": history.Failed, "c": history.Canceled}

// parseEnded reads a record as scripts/lib.lua has it, the attempts too if they are wanted.
func (s *shard) parseEnded(id, value string, attempts bool) (*Ended, error) {
	head, tries, _ := strings.Cut(value, "\n")
	f := strings.SplitN(head, "|", 9)
	for len(f) < 9 {
		f = append(f, "")
	}
	at, _ := strconv.ParseInt(f[0], 10, 64)
	e := &Ended{Record: history.Record{
		ID: id, Round: 1, SubscriptionID: f[6], Namespace: f[5], EventID: eventOf(f[8]), EventType: f[7],
		Status: statuses[f[1]], Reason: f[4], CompletedAt: time.UnixMilli(at).UTC(),
	}, BodyAt: Body{shard: s.index, key: f[8]}}
	e.BodyAt.Size, _ = strconv.Atoi(f[3])
	if more := strings.Split(f[2], ":"); len(more) >= 4 {
		rounds, _ := strconv.Atoi(more[2])
		e.Round, e.ReplayOf = rounds+1, more[3]
	}
	if !attempts {
		return e, nil
	}
	err := readTries(tries, &e.Record)
	if last := e.LastAttempt(); last != nil && last.Reason == e.Reason {
		e.Error = last.Error
	}
	return e, err
}

// History returns a page of what has ended, newest first, of namespaces that may be seen. It may be shorter than
// f.Limit although there is more, also empty: Next tells. Bodies are left out; of the attempts all that are kept are
// there.
func (q *Queue) History(
	ctx context.Context, f history.Filter, visible func(namespace string) bool,
) ([]Ended, history.Cursor, error) {
	var all []Ended
	until := "" // before this, some shard was not looked at
	for _, s := range q.shards {
		part, end, err := s.history(ctx, f, visible)
		if err != nil {
			return nil, "", fmt.Errorf("read the history: %w", err)
		}
		all, until = append(all, part...), max(until, end)
	}
	slices.SortFunc(all, func(a, b Ended) int { return cmp.Compare(b.ID, a.ID) })
	all = slices.DeleteFunc(all, func(e Ended) bool { return e.ID < until })
	if limit := f.PageSize(); len(all) > limit {
		return all[:limit], history.Cursor(all[limit-1].ID), nil
	}
	return all, history.Cursor(until), nil
}

// history returns one record more than a page has, if there is, and the last id that it looked at if it ended early.
func (s *shard) history(ctx context.Context, f history.Filter, visible func(string) bool) ([]Ended, string, error) {
	if err := s.file(ctx); err != nil {
		return nil, "", err
	}
	var found []Ended
	scanned := 0
	end, err := s.eachPast(ctx, f, func(id, value string) (bool, error) {
		scanned++
		e, err := s.parseEnded(id, value, false)
		if err == nil && visible(e.Namespace) && f.Match(&e.Record) {
			if e, err = s.parseEnded(id, value, true); err == nil {
				found = append(found, *e)
			}
		}
		return len(found) <= f.PageSize() && scanned < maxScanned, err
	})
	return found, end, err
}

// eachPast calls do with the records between the filter's bounds, newest first, until it returns false; then it returns
// the id of the last.
func (s *shard) eachPast(
	ctx context.Context, f history.Filter, do func(id, value string) (bool, error),
) (string, error) {
	low, high := f.Bounds()
	for ids, err := range s.pastIDs(ctx, f, low.String(), high.String()) {
		if err != nil {
			return "", err
		}
		for part := range slices.Chunk(ids, readStep) {
			values, err := s.pastValues(ctx, part)
			if err != nil {
				return "", err
			}
			for i, id := range part {
				if values[i] == "" {
					continue // it went meanwhile
				}
				if more, err := do(id, values[i]); err != nil || !more {
					return id, err
				}
			}
		}
	}
	return "", nil
}

// pastIDs gives the ids in pieces, newest first.
func (s *shard) pastIDs(ctx context.Context, f history.Filter, low, high string) func(func([]string, error) bool) {
	within := func(ids []string) []string {
		ids = slices.DeleteFunc(ids, func(id string) bool { return id < low || id >= high })
		slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
		return slices.Compact(ids)
	}
	return func(yield func([]string, error) bool) {
		if len(f.SubscriptionIDs) == 1 {
			ids, err := s.q.client.LRange(ctx, s.keys.prefix+"hist:"+f.SubscriptionIDs[0], 0, -1).Result()
			if err != nil {
				err = unavailable(err)
			}
			yield(within(ids), err)
			return
		}
		buckets, err := s.q.client.ZRevRangeByLex(ctx, s.keys.prefix+"pasts",
			&redis.ZRangeBy{Min: "[" + bucketOf(low), Max: "[" + bucketOf(high)}).Result()
		if err != nil {
			yield(nil, unavailable(err))
			return
		}
		for _, bucket := range buckets {
			ids, err := s.q.client.HKeys(ctx, s.pastKey(bucket)).Result()
			if err != nil {
				err = unavailable(err)
			}
			if !yield(within(ids), err) || err != nil {
				return
			}
		}
	}
}

// pastValues are the records of the ids, "" where there is none.
func (s *shard) pastValues(ctx context.Context, ids []string) ([]string, error) {
	pipe := s.q.client.Pipeline()
	commands := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		commands[i] = pipe.HGet(ctx, s.pastKey(bucketOf(id)), id)
	}
	_ = execute(ctx, pipe) // each command carries its own error
	values := make([]string, len(ids))
	for i, command := range commands {
		value, err := command.Result()
		if err != nil && err != redis.Nil { //nolint:errorlint // as the client gives it
			return nil, unavailable(err)
		}
		values[i] = value
	}
	return values, nil
}

// Bodies reads bodies as they were sent, in order; nil where one is no longer kept.
func (q *Queue) Bodies(ctx context.Context, at []Body) ([][]byte, error) {
	pipe := q.client.Pipeline()
	commands := make([]*redis.StringCmd, len(at))
	for i, b := range at {
		commands[i] = pipe.HGet(ctx, q.shards[b.shard].keys.prefix+"payloads", b.key)
	}
	_ = execute(ctx, pipe) // each command carries its own error
	bodies := make([][]byte, len(at))
	for i, command := range commands {
		payload, err := command.Result()
		switch {
		case err == redis.Nil: //nolint:errorlint // as the client gives it
		case err != nil:
			return nil, fmt.Errorf("read bodies: %w", unavailable(err))
		default:
			_, body, _ := strings.Cut(payload, "\n")
			bodies[i] = []byte(body)
		}
	}
	return bodies, nil
}
