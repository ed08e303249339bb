package queue

import "unicode/utf8"

// maxErrorLength bounds a stored error, in bytes.
const maxErrorLength = 256

// Bounds of what is kept of attempts while their delivery is unfinished: its latest ones, and bytes over a whole shard.
const (
	maxTries      = 32
	maxTriesBytes = 64 << 20
)

func settleArgs(settlements []Settlement, triesBytes int64) []any {
	args := make([]any, 0, 3+10*len(settlements))
	args = append(args, maxTries, triesBytes, len(settlements))
	for i := range settlements {
		args = append(args, settlements[i].Lease.DeliveryID)
	}
	for i := range settlements {
		t := &settlements[i]
		args = append(args, t.Lease.Token, int(t.Result), t.RetryAfter.Milliseconds(), t.ArrivedAgo.Milliseconds(),
			t.Duration.Milliseconds(), t.StatusCode, t.Reason, cut(t.Error, maxErrorLength), t.Attempt)
	}
	return args
}

// settled forgets what is settled, and keeps for the next round trip what a failed one may not have brought.
func (s *shard) settled(settlements []Settlement, p *part) {
	if p.err != nil {
		for i := range settlements {
			settlements[i].repeated = true
		}
		s.mu.Lock()
		s.settlements = append(settlements, s.settlements...)
		s.mu.Unlock()
		return
	}
	for i := range settlements {
		lease := &settlements[i].Lease
		s.let(lease)
		if number(p.reply[i]) == 0 && !settlements[i].repeated && !p.again {
			s.q.metrics.stale.Inc()
			s.log.Warn("Settled too late: the lease had run out", "delivery", lease.DeliveryID,
				"subscription", lease.SubscriptionID, "event", lease.EventID)
		}
	}
}

// let notes that a lease is held no longer.
func (s *shard) let(lease *Lease) {
	h := lease.holding
	if h.left--; h.left == 0 && s.held[lease.Token] == h {
		delete(s.held, lease.Token)
	}
}

// cut shortens text to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
