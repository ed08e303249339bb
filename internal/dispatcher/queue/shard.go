package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// shard gathers the work for one shard and sends it, one round trip at a time.
type shard struct {
	q       *Queue
	index   int
	keys    keys
	log     *slog.Logger
	kick    chan struct{} // holds one token while there is something to do
	confirm chan struct{} // holds one token while there is something to confirm
	endings chan struct{} // holds one token while something has ended that is not filed

	mu          sync.Mutex
	publishes   []*publishCall
	parts       []*publishCall // further parts of large events, which take turns with the events of others
	owed        debt           // what parts will take
	settlements []Settlement
	turn        bool // of s.publishes before s.parts
	ended       bool // takes no publishes any more
	unconfirmed unconfirmed

	// Of the goroutine of run alone:
	held     map[int64]*holding // by token: where Redis lost data, a token may come again
	extended time.Time
	calls    int64 // publish calls made
	answered int64 // the latest of them that was answered
	outage   outage
	// refusalLogged is when a refusal of a part was last told, unsettled whether that of settlements is the latest.
	refusalLogged time.Time
	unsettled     bool
	redisTime     redisTime
}

// holding is what one call leased and is not settled.
type holding struct {
	since time.Time // leased or last extended
	left  int       // deliveries
}

func newShard(q *Queue, index int) *shard {
	return &shard{
		q: q, index: index, keys: newKeys(q.Prefix, index), log: q.Logger.With("shard", index),
		kick: make(chan struct{}, 1), endings: make(chan struct{}, 1), held: map[int64]*holding{},
		confirm: make(chan struct{}, 1),
	}
}

func (s *shard) wakeUp() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Settle brings the end of an attempt. It does not wait: the shard's next round trip carries it, again if that fails.
func (q *Queue) Settle(settlement Settlement) {
	s := q.shards[settlement.Lease.shard]
	settlement.Lease.Body = nil // it is not needed any more, and may be large
	s.mu.Lock()
	s.settlements = append(s.settlements, settlement)
	s.mu.Unlock()
	s.wakeUp()
}

// run makes round trips until ctx ends, then settles what is left within the time of one lease. A round trip is not
// broken off: its publishers and its leases need the answer.
func (s *shard) run(ctx context.Context) error {
	whole := context.WithoutCancel(ctx)
	defer s.startConfirming(whole)()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.finish(whole)
		case <-s.kick:
		case <-timer.C:
		}
		timer.Reset(s.trip(whole, s.gather()))
	}
}

func (s *shard) finish(ctx context.Context) error {
	s.q.StopLeasing()
	defer s.end()
	ctx, cancel := context.WithTimeout(ctx, s.q.LeaseTime)
	defer cancel()
	for {
		work := s.gather()
		if len(work.publishes)+len(work.settlements) == 0 {
			return nil
		}
		pause := s.trip(ctx, work)
		if ctx.Err() != nil {
			return errors.Join(errors.New("settlements left behind at the end; their leases will run out"), ctx.Err())
		}
		if s.outage.since.IsZero() && !s.unsettled {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// end refuses what was not published.
func (s *shard) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, call := range append(s.publishes, s.parts...) {
		call.end(errStopped)
	}
	s.publishes, s.parts = nil, nil
}

var errStopped = fmt.Errorf("%w: this dispatcher has stopped", ErrUnavailable)

// batch is the work of one round trip.
type batch struct {
	publishes   []*publishCall
	settlements []Settlement
	owed        debt
	more        bool // some was left for the next
}

// wanted is the room that all leases of what is published would take.
func (b *batch) wanted() reservation {
	var r reservation
	for _, call := range b.publishes {
		r.deliveries += len(call.targets)
		r.bytes += len(call.payload)
	}
	return r
}

// debt is room in Redis that is promised to further parts of events.
type debt struct{ deliveries, bytes int }

func (d *debt) add(call *publishCall, sign int) {
	d.deliveries += sign * len(call.targets)
	d.bytes += sign * len(call.payload)
}

func (s *shard) gather() batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b batch
	targets, bytes := 0, 0
	take := func(calls []*publishCall) []*publishCall {
		for len(calls) > 0 && (len(b.publishes) == 0 || targets+len(calls[0].targets) <= maxTargets) &&
			len(b.publishes) < maxEvents && bytes < maxBatchBytes {
			call := calls[0]
			targets += len(call.targets)
			bytes += len(call.payload)
			b.publishes = append(b.publishes, call)
			if call.further {
				s.owed.add(call, -1)
			}
			calls[0] = nil
			calls = calls[1:]
		}
		if len(calls) == 0 {
			return nil // lest what was sent stays reachable
		}
		return calls
	}
	if s.turn = !s.turn; s.turn { // by turns, so that neither holds the other up
		s.publishes = take(s.publishes)
		s.parts = take(s.parts)
	} else {
		s.parts = take(s.parts)
		s.publishes = take(s.publishes)
	}
	m := min(len(s.settlements), maxSettlements)
	b.settlements, s.settlements = s.settlements[:m:m], s.settlements[m:]
	if len(s.settlements) == 0 {
		s.settlements = nil
	}
	b.owed = s.owed
	b.more = len(s.publishes)+len(s.parts)+len(s.settlements) > 0
	return b
}

// trip publishes, settles, extends and leases, in this order, so that what was just published or freed can be leased
// at once. What needs no turn is leased with its publication. It returns how long there is nothing to do unless
// somebody kicks.
func (s *shard) trip(ctx context.Context, b batch) time.Duration {
	started := time.Now()
	wanted := b.wanted()
	room := s.q.reserve(s, wanted)
	early, late := room.split(wanted)
	var publish, settle, extend part
	lease := part{args: s.leaseArgs(late, started)}
	if len(b.publishes) > 0 {
		publish.args = s.publishArgs(b.publishes, b.owed, early, started)
	}
	if len(b.settlements) > 0 {
		settle.args = settleArgs(b.settlements, s.q.historyBytes()/4)
	}
	extending := s.dueForExtension(started)
	if len(extending) > 0 {
		extend.args = s.extendArgs(extending)
	}
	s.call(ctx, &publish, &settle, &extend, &lease)
	if lease.err == nil {
		s.redisTime = redisTime{told: number(lease.reply[1]), came: time.Now()}
	}

	if len(b.publishes) > 0 {
		s.answer(b.publishes, &publish, started)
	}
	if len(b.settlements) > 0 {
		s.settled(b.settlements, &settle)
		s.someEnded()
	}
	if len(extending) > 0 {
		s.prolonged(extending, &extend, started)
	}
	wait, hungry := s.leased(&lease, started, late)
	s.q.unreserve(s, room, hungry)
	switch s.unsettled = settle.err != nil; {
	case s.unsettled:
		return min(wait, refusedRetry)
	case b.more:
		return 0
	default:
		return wait
	}
}

// part is one of those of trip.lua; without args it is left out.
type part struct {
	args  []any
	reply []any
	err   error
	again bool // as in step
}

// call runs trip.lua, with its parts in its order.
func (s *shard) call(ctx context.Context, parts ...*part) {
	n := 1 + len(parts)
	for _, p := range parts {
		n += len(p.args)
	}
	args := make([]any, 1, n)
	args[0] = ""
	for _, p := range parts {
		args = append(args, len(p.args))
	}
	for _, p := range parts {
		args = append(args, p.args...)
	}
	st := &step{script: tripScript, args: args}
	s.q.roundTrip(ctx, s.keys, []*step{st})
	for i, p := range parts {
		p.err, p.again = st.err, st.again
		if st.err != nil {
			continue
		}
		switch reply := st.reply[i].(type) {
		case []any:
			p.reply = reply
		case string: // only this part was refused
			p.err = refusal(reply)
			s.refused(p.err)
		}
	}
}

// refused tells of a part that Redis refused, once a minute at most.
func (s *shard) refused(err error) {
	if now := time.Now(); now.Sub(s.refusalLogged) >= outageLogInterval {
		s.log.Error("Redis refuses a part of what it was sent", "error", err)
		s.refusalLogged = now
	}
}

// refusal is the error of a part that Redis refused, whose text is that of Redis.
func refusal(text string) error {
	if strings.Contains(text, "OOM") {
		return fmt.Errorf("%w: %w: %s", ErrUnavailable, ErrFull, text)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, text)
}

// extension is a third of the lease time: two may fail before a lease is lost.
func (s *shard) extension() time.Duration { return s.q.LeaseTime / 3 }

// dueForExtension names the tokens that were not extended for a while; it looks at most once in that while.
func (s *shard) dueForExtension(now time.Time) []int64 {
	if now.Sub(s.extended) < s.extension() {
		return nil
	}
	s.extended = now
	var tokens []int64
	for token, h := range s.held {
		if now.Sub(h.since) >= s.extension() {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

func (s *shard) extendArgs(tokens []int64) []any {
	args := make([]any, 0, 1+len(tokens))
	args = append(args, milliseconds(s.q.LeaseTime))
	for _, token := range tokens {
		args = append(args, token)
	}
	return args
}

func (s *shard) prolonged(tokens []int64, p *part, started time.Time) {
	if p.err != nil {
		s.extended = time.Time{} // again in the next round trip
		return
	}
	for i, token := range tokens {
		h, ok := s.held[token]
		switch {
		case !ok: // its last delivery was settled in the same round trip
		case i < len(p.reply) && number(p.reply[i]) == 1:
			h.since = started
		default:
			delete(s.held, token)
			s.q.metrics.lost.Add(float64(h.left))
		}
	}
}

// pause is how long the shard may sleep when Redis says that something is due after wait (negative: at once), and
// whether it is hungry: it had no room for what is due. Then it looks again when a settlement or another shard gives
// room back, and while it sleeps other dispatchers were woken. When the time comes it looks even without room, to wake
// them.
func (s *shard) pause(wait time.Duration, took, asked int) (sleep time.Duration, hungry bool) {
	limit := maxSleep
	if len(s.held) > 0 {
		limit = min(limit, s.extension())
	}
	switch {
	case wait > 0:
		return min(wait, limit), false
	case asked == 0:
		return limit, true
	case took == 0:
		return shortly, false // others were quicker
	default:
		return 0, false
	}
}

// outage keeps the log quiet while Redis is away: one line when it goes, one a minute, one when it is back.
type outage struct {
	since, logged time.Time
	failures      int
}

const (
	outageLogInterval = time.Minute
	firstRetry        = 50 * time.Millisecond
	lastRetry         = 2 * time.Second
	refusedRetry      = time.Second
	shortly           = 10 * time.Millisecond
)

// failed notes a failed round trip and says how long to wait before the next.
func (s *shard) failed(err error) time.Duration {
	now := time.Now()
	if s.outage.since.IsZero() {
		s.outage.since = now
	}
	if now.Sub(s.outage.logged) >= outageLogInterval {
		s.log.Error("Redis does not answer; events are refused and deliveries wait",
			"since", s.outage.since.UTC().Format(time.RFC3339), "error", err)
		s.outage.logged = now
	}
	s.outage.failures++
	return min(firstRetry<<min(s.outage.failures, 6), lastRetry)
}

func (s *shard) recovered() {
	if s.outage.since.IsZero() {
		return
	}
	s.log.Info("Redis answers again", "away", time.Since(s.outage.since).Round(time.Millisecond).String())
	s.outage = outage{}
}
