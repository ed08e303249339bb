package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/internal/dispatcher/history"
)

const (
	// operateStep is how many deliveries are changed in one round trip, each by a call of its own that holds Redis for
	// some 50 µs.
	operateStep = 100
	// operateEvery is how soon at the latest a dispatcher goes on with what another one has left.
	operateEvery = 3 * time.Second
	// operatorTime is how long one that has died keeps the others away from an operation.
	operatorTime = 5 * time.Second
)

// keepOperating does the operations that were begun, by whatever dispatcher, until ctx ends. It says nothing of an
// outage: the shards do.
func (q *Queue) keepOperating(ctx context.Context) error {
	timer := time.NewTimer(operateEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.begun:
		case <-timer.C:
		}
		for worked := true; worked && ctx.Err() == nil; {
			worked = q.operateAll(ctx)
		}
		timer.Reset(operateEvery)
	}
}

// operateAll makes a step of each operation that no other dispatcher is at, and tells whether there was any.
func (q *Queue) operateAll(ctx context.Context) (worked bool) {
	ids, err := q.client.ZRange(ctx, q.shards[0].keys.operations(), 0, -1).Result()
	if err != nil {
		return false
	}
	for _, id := range ids {
		if q.takeOperation(ctx, id) && q.operate(ctx, id) {
			worked = true
		}
	}
	return worked
}

// takeOperation makes this dispatcher the one that works on an operation, for a while. Two that do so at once do no
// harm: the script takes each delivery once.
func (q *Queue) takeOperation(ctx context.Context, id string) bool {
	key := q.shards[0].keys.operator(id)
	mine, err := q.client.SetNX(ctx, key, q.instance, operatorTime).Result()
	if err != nil || mine {
		return mine
	}
	if q.client.Get(ctx, key).Val() != q.instance {
		return false
	}
	return q.client.PExpire(ctx, key, operatorTime).Err() == nil
}

// operate makes a step of an operation on each shard, and ends it where nothing is left. It tells whether there is
// more to do at once.
func (q *Queue) operate(ctx context.Context, id string) bool {
	o, err := q.Operation(ctx, id)
	if err != nil {
		return false
	}
	left := false
	if o != nil {
		for _, s := range q.shards {
			more, err := s.operate(ctx, o)
			if err != nil {
				return false
			}
			left = left || more
		}
	}
	if left {
		return true
	}
	_, err = q.run(ctx, endedScript, q.shards[0].keys, []any{"", id, milliseconds(OperationMemory)})
	return err == nil
}

// operate changes the next deliveries of a shard, and tells whether there may be more.
func (s *shard) operate(ctx context.Context, o *Operation) (more bool, err error) {
	ids, err := s.q.client.LRange(ctx, s.keys.operationLeft(o.ID), 0, operateStep-1).Result()
	if err != nil || len(ids) == 0 {
		return false, readError(err)
	}
	steps, err := s.steps(ctx, o, ids)
	if err != nil {
		return false, err
	}
	s.q.roundTrip(ctx, s.keys, steps)
	for _, st := range steps {
		if st.err != nil {
			return false, st.err
		}
	}
	if o.Kind == RetryOperation {
		s.wakeUp()
	} else {
		s.someEnded()
	}
	return true, nil
}

// steps are calls that change the next deliveries, each when it is its turn: some of them where they are large.
func (s *shard) steps(ctx context.Context, o *Operation, ids []string) ([]*step, error) {
	if o.Kind == CancelOperation {
		steps := make([]*step, len(ids))
		for i, id := range ids {
			steps[i] = &step{script: cancelNextScript, args: []any{"", o.ID, string(o.States), int64(InFlight), id, ""}}
		}
		return steps, nil
	}
	gone, err := s.gone(ctx, ids)
	if err != nil {
		return nil, err
	}
	var steps []*step
	shards, bytes := int64(len(s.q.shards)), 0
	for _, id := range ids {
		replay, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an id for the repetition of delivery %s: %w", id, err)
		}
		st := &step{script: retryNextScript, args: []any{
			"", o.ID, string(o.States), int64(Requeued), id, "", replay.String(),
			int64(s.q.MaxDeliveries) / shards, s.q.MaxBytes / shards, 0,
		}}
		if gone[id] {
			r, body, err := s.q.archived(ctx, id)
			if err != nil {
				return steps, ifFirst(steps, err)
			}
			if body != nil {
				st.script, st.args[5] = restoreNextScript, outcomes[r.Status]
				st.args = append(st.args, restored(r, body, replay.String())...)
			}
			if bytes += len(body); bytes > maxBatchBytes {
				return append(steps, st), nil
			}
		}
		steps = append(steps, st)
	}
	return steps, nil
}

// ifFirst lets what can be done before an error be done.
func ifFirst(steps []*step, err error) error {
	if len(steps) > 0 {
		return nil
	}
	return err
}

// gone are those of the deliveries that only the archive may have.
func (s *shard) gone(ctx context.Context, ids []string) (map[string]bool, error) {
	if s.q.Archive == nil {
		return nil, nil
	}
	if err := s.file(ctx); err != nil {
		return nil, err
	}
	pipe := s.q.client.Pipeline()
	there := make([][2]*redis.BoolCmd, len(ids))
	for i, id := range ids {
		there[i] = [2]*redis.BoolCmd{
			pipe.HExists(ctx, s.keys.deliveries(), id), pipe.HExists(ctx, s.pastKey(bucketOf(id)), id),
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(err)
	}
	gone := map[string]bool{}
	for i, id := range ids {
		gone[id] = !there[i][0].Val() && !there[i][1].Val()
	}
	return gone, nil
}

// archived is a delivery that left the history, from the archive or from what waits to be copied there. The body is nil
// where either is not kept.
func (q *Queue) archived(ctx context.Context, id string) (*history.Record, []byte, error) {
	r, err := q.Archive.Get(ctx, id)
	if errors.Is(err, history.ErrNotFound) {
		return q.waiting(ctx, id)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read delivery %s of the archive: %w", id, err)
	}
	bodies, err := q.Archive.Bodies(ctx, []history.Record{r}, maxBatchBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read the body of delivery %s of the archive: %w", id, err)
	}
	return &r, bodies[r.Body], nil
}

func (q *Queue) waiting(ctx context.Context, id string) (*history.Record, []byte, error) {
	e, err := q.FindWaiting(ctx, id)
	if err != nil || e == nil {
		return nil, nil, err
	}
	bodies, err := q.Bodies(ctx, []Body{e.BodyAt})
	if err != nil {
		return nil, nil, err
	}
	return &e.Record, bodies[0], nil
}
