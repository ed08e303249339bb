package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// Bounds of operations, which together may take some 40 MB of Redis.
const (
	// MaxOperated is how many deliveries one operation has at most.
	MaxOperated = 100_000
	// MaxOperations is how many are under way at most.
	MaxOperations = 8
	// OperationLifetime is after how long what an operation has not done yet is left as it is.
	OperationLifetime = 6 * time.Hour
	// OperationMemory is how long a finished one can be asked for.
	OperationMemory = 24 * time.Hour

	listChunk = 1000
)

// OperationKind is what an operation does to each of its deliveries.
type OperationKind string

// What it may be.
const (
	RetryOperation  OperationKind = "retry"  // as Retry does
	CancelOperation OperationKind = "cancel" // as CancelDelivery does
)

// Plan is what an operation is for.
type Plan struct {
	Kind OperationKind `json:"kind"`
	// Choice says which states a delivery must still be in when its turn comes.
	States States `json:"states"`
	// Namespaces are those of its deliveries.
	Namespaces []string `json:"namespaces"`
}

// States of deliveries, as scripts/operate.lua writes them.
type States string

// StatesOf are those that a Choice selects.
func StatesOf(c *Choice) States {
	var states strings.Builder
	if c.Pending {
		states.WriteByte('p')
	}
	if c.Retrying {
		states.WriteByte('r')
	}
	for letter, status := range statuses {
		if slices.Contains(c.Statuses, status) {
			states.WriteString(letter)
		}
	}
	return States(states.String())
}

// Operation is a change of many deliveries, which goes on whatever dispatcher dies.
type Operation struct {
	Plan

	ID                     string
	Matched, Done, Skipped int64 // deliveries
	StartedAt              time.Time
	FinishedAt             time.Time // zero while it is under way
}

// ErrTooManyOperations says that MaxOperations are under way.
var ErrTooManyOperations = fmt.Errorf("%d operations are under way", MaxOperations)

// Begin starts an operation on deliveries that were chosen. Every dispatcher may do its work; none need be this one.
func (q *Queue) Begin(ctx context.Context, p Plan, chosen Chosen) (*Operation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id for an operation: %w", err)
	}
	o := &Operation{Plan: p, ID: "op_" + strings.ReplaceAll(id.String(), "-", ""), Matched: int64(len(chosen))}
	caller := ctx
	ctx = context.WithoutCancel(ctx) // a call that is cut off may be executed all the same, and later than the next
	if err = q.list(ctx, o.ID, chosen); err == nil {
		err = caller.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("begin an operation: %w", errors.Join(err, q.unlist(ctx, o.ID)))
	}
	what, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write down operation %s: %w", o.ID, err)
	}
	reply, err := q.run(ctx, beginScript, q.shards[0].keys, []any{
		"", o.ID, MaxOperations, milliseconds(OperationLifetime + OperationMemory), len(chosen), what,
	})
	switch {
	case err != nil: // it may have begun, so its lists stay; else they go with their time
		return nil, fmt.Errorf("begin operation %s: %w", o.ID, err)
	case number(reply[0]) == 0:
		return nil, errors.Join(ErrTooManyOperations, q.unlist(ctx, o.ID))
	}
	o.StartedAt = moment(reply[1])
	if len(chosen) == 0 {
		o.FinishedAt = o.StartedAt
	}
	select {
	case q.begun <- struct{}{}:
	default:
	}
	return o, nil
}

// list writes each shard's deliveries, in order, before the operation begins: nobody looks at them until then.
func (q *Queue) list(ctx context.Context, id string, chosen Chosen) error {
	ids := make([][]any, len(q.shards))
	for _, d := range chosen {
		ids[d.shard] = append(ids[d.shard], d.ID)
	}
	for index, part := range ids {
		k := q.shards[index].keys
		listed := 0
		for chunk := range slices.Chunk(part, listChunk) {
			args := append([]any{"", id, listed, milliseconds(OperationLifetime),
				milliseconds(OperationLifetime + OperationMemory)}, chunk...)
			if _, err := q.run(ctx, enlistScript, k, args); err != nil {
				return err
			}
			listed += len(chunk)
		}
	}
	return nil
}

// unlist takes back the lists of an operation that has not begun; what it cannot goes with its time.
func (q *Queue) unlist(ctx context.Context, id string) error {
	pipe := q.client.Pipeline()
	for _, s := range q.shards {
		pipe.Unlink(ctx, s.keys.operationLeft(id))
		pipe.Unlink(ctx, s.keys.operationCounts(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return unavailable(err)
	}
	return nil
}

var operationID = regexp.MustCompile(`^op_[0-9a-f]{32}$`)

// Operation tells how an operation stands, nil where there is none, or no longer.
func (q *Queue) Operation(ctx context.Context, id string) (*Operation, error) {
	if !operationID.MatchString(id) {
		return nil, nil
	}
	pipe := q.client.Pipeline()
	head := pipe.HGetAll(ctx, q.shards[0].keys.operation(id))
	counts := make([]*redis.SliceCmd, len(q.shards))
	for i, s := range q.shards {
		counts[i] = pipe.HMGet(ctx, s.keys.operationCounts(id), "done", "skipped")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read operation %s: %w", id, unavailable(err))
	}
	if len(head.Val()) == 0 {
		return nil, nil
	}
	f := head.Val()
	o := &Operation{
		ID: id, Matched: number(f["matched"]), StartedAt: moment(f["started"]), FinishedAt: moment(f["finished"]),
	}
	if err := json.Unmarshal([]byte(f["what"]), &o.Plan); err != nil {
		return nil, fmt.Errorf("read operation %s: %w", id, err)
	}
	for _, c := range counts {
		o.Done += number(c.Val()[0])
		o.Skipped += number(c.Val()[1])
	}
	return o, nil
}
