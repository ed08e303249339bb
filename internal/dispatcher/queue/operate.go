package queue

import (
	"context"
	"time"

	"github.com/google/uuid"
)

const (
	// operateStep is how many deliveries are changed in one round trip, each by a call of its own that holds Redis for
	// some 50 µs.
	operateStep = 100
	// operateEvery is how soon at the latest a dispatcher goes on with what another one has left.
	operateEvery = 3 * time.Second
	// operatorTime is how long one that has died keeps the others away from an operation.
	operatorTime = 5 * time.Second
	// nothingLeft is what a step answers where a shard has no delivery left.
	nothingLeft = -1
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
	steps := make([]*step, operateStep)
	for i := range steps {
		if steps[i], err = s.operation(o, o.over[s.index]+int64(i)); err != nil {
			return false, err
		}
	}
	s.q.roundTrip(ctx, s.keys, steps)
	more = true
	for _, st := range steps {
		if st.err != nil {
			return false, st.err
		}
		more = more && number(st.reply[0]) != nothingLeft
	}
	if o.Kind == RetryOperation {
		s.wakeUp()
	} else {
		s.someEnded()
	}
	return more, nil
}

// operation is the call that changes the next delivery, before which so many of the shard are over.
func (s *shard) operation(o *Operation, before int64) (*step, error) {
	if o.Kind == CancelOperation {
		return &step{script: cancelNextScript, args: []any{"", o.ID, string(o.States), int64(InFlight), before}}, nil
	}
	replay, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	shards := int64(len(s.q.shards))
	return &step{script: retryNextScript, args: []any{
		"", o.ID, string(o.States), int64(Requeued), before, replay.String(),
		int64(s.q.MaxDeliveries) / shards, s.q.MaxBytes / shards, 0,
	}}, nil
}
