package queue

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Changed says what became of a delivery that somebody wants to change.
type Changed struct {
	Outcome ChangeOutcome
	ID      string // of the delivery that is queued or cancelled: a new one for a retry of one that had succeeded
}

// ChangeOutcome is a kind of that.
type ChangeOutcome int

// What becomes of it.
const (
	Requeued     ChangeOutcome = iota // it waits for an attempt at once, with a fresh retry budget
	InFlight                          // it is being sent: ask again when that has ended
	NotFound                          // there is none, or no longer
	Unqueueable                       // its subscription or its body is gone, or there is no room
	Canceled                          // it ended, or ends with the attempt that is under way
	AlreadyEnded                      // it had ended before
)

// Retry makes a delivery be tried at once: one that waits, that failed or was canceled under its own id, and a copy of
// one that had succeeded.
func (q *Queue) Retry(ctx context.Context, id string) (Changed, error) {
	replay, err := uuid.NewV7()
	if err != nil {
		return Changed{}, fmt.Errorf("make an id for the repetition of delivery %s: %w", id, err)
	}
	shards := int64(len(q.shards))
	for _, s := range q.shards {
		if err := s.file(ctx); err != nil {
			return Changed{}, fmt.Errorf("retry delivery %s: %w", id, err)
		}
		args := []any{"", id, replay.String(), int64(q.MaxDeliveries) / shards, q.MaxBytes / shards,
			milliseconds(callMemory)}
		reply, err := q.run(ctx, retryScript, s.keys, args)
		if err != nil {
			return Changed{}, fmt.Errorf("retry delivery %s: %w", id, err)
		}
		switch outcome := ChangeOutcome(number(reply[0])); outcome {
		case NotFound:
		case Requeued:
			s.wakeUp()
			return Changed{Requeued, text(reply[1])}, nil
		default:
			return Changed{outcome, id}, nil
		}
	}
	return Changed{NotFound, id}, nil
}

// CancelDelivery ends an unfinished delivery; one that is being sent just now ends with that attempt.
func (q *Queue) CancelDelivery(ctx context.Context, id string) (Changed, error) {
	again := false
	for _, s := range q.shards {
		st := &step{script: endScript, args: []any{"", id}}
		q.roundTrip(ctx, s.keys, []*step{st})
		if st.err != nil {
			return Changed{}, fmt.Errorf("cancel delivery %s: %w", id, st.err)
		}
		if number(st.reply[0]) != int64(NotFound) {
			s.someEnded()
			return Changed{Canceled, id}, nil
		}
		again = again || st.again
	}
	if again { // it may have been cancelled by the call whose answer got lost
		_, ended, err := q.Find(ctx, id)
		if err != nil {
			return Changed{}, fmt.Errorf("cancel delivery %s: %w", id, err)
		}
		if ended != nil && ended.Status == history.Canceled {
			return Changed{Canceled, id}, nil
		}
	}
	return Changed{AlreadyEnded, id}, nil
}
