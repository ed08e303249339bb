package queue

import (
	"context"
	"fmt"
)

// Violation is a broken promise that Audit found.
type Violation struct {
	Shard   int
	Subject string // a delivery, an event or a subscription
	Problem string
}

// maxAudit bounds the unfinished deliveries of a shard that is audited: Redis is held for about a second for as many.
const maxAudit = 200_000

var violations = map[int64]string{
	1: "delivery is in no place", 2: "delivery is in several places", 3: "delivery is in a place but has no record",
	4: "delivery waits for another subscription than its record says", 5: "payload is missing",
	6: "payload or references without a delivery", 7: "references do not equal the unfinished deliveries",
	8: "counts of the subscription are wrong", 9: "subscription is in ready but must not run",
	10: "subscription must run but is not in ready", 11: "payload bytes are wrong",
	12: "subscription of a delivery is unknown", 13: "requests in the rate window are wrong",
	14: "subscription is in ready too late", 15: "record of the history is in a wrong bucket or not listed",
	16: "bucket of the history without records", 17: "bytes of the history are wrong",
	18: "bytes of the outbox are wrong", 19: "bytes of earlier attempts are wrong",
	20: "delivery is in the queue and in the history",
	21: "mark for the reflector and the subscription disagree", 22: "count of the retrying is wrong",
	23: "lease holds no delivery",
}

// Audit checks the whole queue and returns what is wrong and how many unfinished deliveries it saw. It holds Redis
// while it looks, so it is for tests and for a doubt.
func (q *Queue) Audit(ctx context.Context) (found []Violation, deliveries int64, err error) {
	for _, s := range q.shards {
		reply, err := q.run(ctx, auditScript, s.keys, []any{"", maxAudit})
		if err != nil {
			return nil, 0, fmt.Errorf("audit shard %d: %w", s.index, err)
		}
		if number(reply[0]) < 0 {
			return nil, 0, fmt.Errorf("audit shard %d: %d unfinished deliveries are more than %d", s.index,
				number(reply[1]), maxAudit)
		}
		deliveries += number(reply[0])
		for i := 1; i+1 < len(reply); i += 2 {
			found = append(found, Violation{s.index, fmt.Sprint(reply[i+1]), violations[number(reply[i])]})
		}
	}
	return found, deliveries, nil
}
