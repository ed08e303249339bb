package queue

import (
	"context"
	"fmt"
	"time"
)

const (
	// fileEvery is how long what has ended waits at most to be filed, unless somebody reads the history before. The longer
	// it is, the more of what a busy subscription ends need not be filed at all; meanwhile it takes memory.
	fileEvery = 5 * time.Second
	// fileIdle is the same where no delivery of this dispatcher has ended: for what others left, and for what is too old.
	fileIdle = 10 * time.Second
	// fileRecords and forgetMost bound one step, and with it the time that Redis is held: about 2 ms.
	fileRecords = 256
	forgetMost  = 512
)

// historyBytes is the part of MaxHistoryBytes that one shard has.
func (q *Queue) historyBytes() int64 { return q.MaxHistoryBytes / int64(len(q.shards)) }

func (q *Queue) fileArgs() []any {
	return []any{
		"", fileRecords, q.MaxHistory, milliseconds(q.MaxHistoryAge), q.historyBytes(), flag(q.MaxOutboxBytes > 0),
		q.MaxOutboxBytes / int64(len(q.shards)), forgetMost,
	}
}

// file brings what has ended into the shard's history, and keeps that within its bounds.
func (s *shard) file(ctx context.Context) error {
	for {
		reply, err := s.q.run(ctx, fileScript, s.keys, s.q.fileArgs())
		if err != nil {
			return fmt.Errorf("file ended deliveries of shard %d: %w", s.index, err)
		}
		if number(reply[1]) == 0 && number(reply[2]) == 0 {
			return nil
		}
	}
}

// keepHistory files until ctx ends. It says nothing of an outage: the shard does.
func (s *shard) keepHistory(ctx context.Context) error {
	timer := time.NewTimer(fileEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			_ = s.file(ctx)
			timer.Reset(fileIdle)
		case <-s.endings:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(fileEvery):
			}
			_ = s.file(ctx)
			timer.Reset(fileIdle)
		}
	}
}

// someEnded makes keepHistory look within fileEvery.
func (s *shard) someEnded() {
	select {
	case s.endings <- struct{}{}:
	default:
	}
}
