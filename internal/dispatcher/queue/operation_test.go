package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/test/redistest"
)

// failing ends each delivery with failure, and after heal with success.
type failing struct {
	mu     sync.Mutex
	healed bool
}

func (f *failing) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.healed = true
}

func (f *failing) end(l Lease) Settlement {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.healed {
		return done(l)
	}
	return Settlement{Lease: l, Result: Fail, StatusCode: 500, Reason: "server_error"}
}

// publishMany publishes that many events of one delivery each, by turns to the subscriptions, and returns the deliveries.
func publishMany(t testing.TB, q *Queue, n int, subs ...string) (ids []string) {
	t.Helper()
	var all []Publication
	for i := range n {
		id := uuid.Must(uuid.NewV7()).String()
		ids = append(ids, id)
		all = append(all, Publication{
			EventID: "e" + id, EventType: "build.completed", Body: []byte(`{}`), Targets: []Target{{subs[i%len(subs)], id}},
		})
	}
	for part := range slices.Chunk(all, maxTargets) {
		publish(t, q, part...)
	}
	return ids
}

// failedOnce publishes, and waits until all have failed.
func failedOnce(t testing.TB, q *Queue, n int, subs ...string) []string {
	t.Helper()
	ids := publishMany(t, q, n, subs...)
	eventually(t, "all have ended", func() bool { return size(t, q) == 0 })
	return ids
}

// ofStatus chooses what has ended so.
func ofStatus(status ...history.Status) Choice {
	c := Choice{Most: MaxOperated}
	c.Statuses = status
	return c
}

func anybody(_, namespace string) (string, bool) { return namespace, true }

func chosenOf(t testing.TB, q *Queue, c Choice) Chosen {
	t.Helper()
	chosen, err := q.Choose(t.Context(), c, anybody)
	if err != nil {
		t.Fatal(err)
	}
	return chosen
}

func begin1(t testing.TB, q *Queue, kind OperationKind, c Choice) *Operation {
	t.Helper()
	o, err := q.Begin(t.Context(), Plan{Kind: kind, States: StatesOf(&c), Namespaces: []string{"n"}}, chosenOf(t, q, c))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// finishedAs waits until an operation has ended, and compares its counts.
func finishedAs(t testing.TB, q *Queue, id string, done, skipped int64) {
	t.Helper()
	var o *Operation
	eventually(t, "the operation has ended", func() bool {
		var err error
		if o, err = q.Operation(t.Context(), id); err != nil || o == nil {
			t.Fatalf("operation %s: %v %v", id, o, err)
		}
		return !o.FinishedAt.IsZero()
	})
	if o.Done != done || o.Skipped != skipped || o.Matched != done+skipped {
		t.Errorf("%d of %d done, %d skipped, want %d and %d", o.Done, o.Matched, o.Skipped, done, skipped)
	}
	if o.StartedAt.IsZero() || o.FinishedAt.Before(o.StartedAt) {
		t.Errorf("from %v to %v", o.StartedAt, o.FinishedAt)
	}
}

// attempts counts by delivery.
func attempts(leases []Lease) map[string]int {
	times := map[string]int{}
	for _, l := range leases {
		times[l.DeliveryID]++
	}
	return times
}

// eachTried fails unless each delivery was tried exactly so often.
func eachTried(t testing.TB, times map[string]int, ids []string, want int) {
	t.Helper()
	wrong := 0
	for _, id := range ids {
		if times[id] != want {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d were not tried %d times", wrong, len(ids), want)
	}
}

// testOperations is part of the suite.
func testOperations(t *testing.T, p place) {
	f := &failing{}
	q, c := p.run(t, func(_ *Options, c *sink) { c.ends = f.end })
	configure(t, q, "s1", "s2", "s3")
	failed := failedOnce(t, q, 90, "s1", "s2", "s3")
	f.heal()
	later := publishMany(t, q, 3, "s1")
	o := begin1(t, q, RetryOperation, ofStatus(history.Failed))
	finishedAs(t, q, o.ID, 90, 0)
	empty(t, q)
	eachTried(t, attempts(c.got()), failed, 2)
	eachTried(t, attempts(c.got()), later, 1)

	if err := q.Configure(t.Context(), []Limits{func() Limits { l := open("s2"); l.Generation, l.Paused = 2, true; return l }()}); err != nil {
		t.Fatal(err)
	}
	waiting := publishMany(t, q, 40, "s2")
	waits := Choice{Pending: true, Retrying: true, Most: 30}
	o = begin1(t, q, CancelOperation, waits)
	finishedAs(t, q, o.ID, 30, 0)
	if n := size(t, q); n != 10 {
		t.Errorf("%d wait still, want 10", n)
	}
	audited(t, q)
	for i, id := range waiting { // the oldest were taken
		if _, ended, err := q.Find(t.Context(), id); err != nil || (ended != nil && ended.Status == history.Canceled) != (i < 30) {
			t.Fatalf("delivery %d: %+v %v", i, ended, err)
		}
	}
	o = begin1(t, q, RetryOperation, ofStatus(history.Success)) // 93 successes become 93 deliveries more
	finishedAs(t, q, o.ID, 93, 0)
	if o, err := q.Operation(t.Context(), "op_00000000000000000000000000000000"); o != nil || err != nil {
		t.Errorf("an unknown one is %v %v", o, err)
	}
}

func TestAChoiceIsWhatMatchesAndTheOldestOfIt(t *testing.T) {
	p := onServer(t, common)
	f := &failing{}
	q, _ := p.run(t, func(_ *Options, c *sink) { c.ends = f.end })
	configure(t, q, "s1", "s2")
	failed := failedOnce(t, q, 6, "s1", "s2")
	middle, err := history.ParseID(failed[3])
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*Choice)
		may    func(sub, namespace string) (string, bool)
		want   []string
	}{
		"all that failed":              {want: failed},
		"the oldest":                   {change: func(c *Choice) { c.Most = 2 }, want: failed[:2]},
		"of a subscription":            {change: func(c *Choice) { c.SubscriptionIDs = []string{"s2"} }, want: []string{failed[1], failed[3], failed[5]}},
		"of another type":              {change: func(c *Choice) { c.EventType = "build.failed" }},
		"made before":                  {change: func(c *Choice) { c.Until = middle.Time() }, want: madeBefore(failed, middle)},
		"that waits":                   {change: func(c *Choice) { c.Statuses, c.Pending, c.Retrying = nil, true, true }},
		"that may be seen":             {may: func(sub, _ string) (string, bool) { return "n", sub == "s1" }, want: []string{failed[0], failed[2], failed[4]}},
		"of which nothing may be seen": {may: func(string, string) (string, bool) { return "", false }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			choice := ofStatus(history.Failed)
			if c.change != nil {
				c.change(&choice)
			}
			if c.may == nil {
				c.may = anybody
			}
			chosen, err := q.Choose(t.Context(), choice, c.may)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range chosen {
				got = append(got, d.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func madeBefore(ids []string, limit history.UUID) (before []string) {
	for _, id := range ids {
		if id < history.FirstID(limit.Time()).String() {
			before = append(before, id)
		}
	}
	return before
}

// Whoever begins or does an operation may die between any two of its steps: another dispatcher goes on, and each
// delivery is changed once.
func TestAnOperationSurvivesWhoeverIsAtIt(t *testing.T) {
	const all = 3*operateStep + 7
	deaths := map[string]struct {
		until func(*testing.T, *Queue, *Operation) // what the one does that dies
		begun bool
	}{
		"after it was listed": {until: func(*testing.T, *Queue, *Operation) {}},
		"after it began":      {until: start1, begun: true},
		"after it was taken": {until: func(t *testing.T, q *Queue, o *Operation) {
			start1(t, q, o)
			if !q.takeOperation(t.Context(), o.ID) {
				t.Fatal("somebody else is at it")
			}
		}, begun: true},
		"after a step": {until: func(t *testing.T, q *Queue, o *Operation) {
			start1(t, q, o)
			if !q.operateAll(t.Context()) {
				t.Fatal("nothing was done")
			}
		}, begun: true},
		"amid a step": {until: func(t *testing.T, q *Queue, o *Operation) {
			start1(t, q, o)
			s := q.shards[0]
			steps, err := s.steps(t.Context(), o, q.client.LRange(t.Context(), s.keys.operationLeft(o.ID), 0, 0).Val())
			if err != nil {
				t.Fatal(err)
			}
			q.roundTrip(t.Context(), s.keys, steps)
		}, begun: true},
		"after the last step": {until: func(t *testing.T, q *Queue, o *Operation) {
			start1(t, q, o)
			for more := true; more; {
				var err error
				if more, err = q.shards[0].operate(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
		}, begun: true},
	}
	for name, death := range deaths {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := onServer(t, common)
			f := &failing{}
			first, c := p.run(t, func(o *Options, c *sink) { c.ends, o.MaxHistory = f.end, all })
			configure(t, first, "s1")
			failed := failedOnce(t, first, all, "s1")
			f.heal()

			dying := p.queue(t, func(o *Options) { o.MaxHistory = all })
			choice := ofStatus(history.Failed)
			o := &Operation{ID: "op_00000000000000000000000000000001", Plan: Plan{Kind: RetryOperation, States: StatesOf(&choice)}, Matched: all}
			if err := dying.list(t.Context(), o.ID, chosenOf(t, dying, choice)); err != nil {
				t.Fatal(err)
			}
			death.until(t, dying, o)
			if !death.begun {
				if left, err := first.Operation(t.Context(), o.ID); left != nil || err != nil {
					t.Errorf("an operation that nobody began is %v %v", left, err)
				}
				if first.operateAll(t.Context()) {
					t.Error("it is done")
				}
				return
			}
			finishedAs(t, first, o.ID, all, 0)
			empty(t, first)
			eachTried(t, attempts(c.got()), failed, 2)
		})
	}
}

func start1(t *testing.T, q *Queue, o *Operation) {
	t.Helper()
	if _, err := q.run(t.Context(), beginScript, q.shards[0].keys, []any{
		"", o.ID, MaxOperations, milliseconds(time.Hour), o.Matched, `{"kind":"retry","states":"f"}`,
	}); err != nil {
		t.Fatal(err)
	}
}

// A caller who hangs up while the deliveries are listed leaves no list behind.
func TestAnOperationWhoseCallerIsGoneLeavesNothing(t *testing.T) {
	q := onServer(t, redistest.ForTest(t)).queue(t, nil)
	chosen := make(Chosen, 20_000)
	for i := range chosen {
		chosen[i].ID = fmt.Sprintf("019ab9f2-0000-7000-8000-%012d", i)
	}
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		_, err := q.Begin(ctx, Plan{Kind: RetryOperation, States: "f"}, chosen)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("begun with %v", err)
		}
	}
	if left := q.client.Keys(t.Context(), "*op:*").Val(); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// Two dispatchers, of which one stops midway, and 10,000 deliveries: each is retried once.
func TestALargeOperationByTwoDispatchers(t *testing.T) {
	const all = 10_000
	p := onServer(t, redistest.ForTest(t))
	f := &failing{}
	q, c := p.run(t, func(o *Options, c *sink) { c.ends, o.MaxHistory = f.end, all })
	configure(t, q, "s1", "s2")
	failed := failedOnce(t, q, all, "s1", "s2")
	f.heal()
	other := &sink{room: 1000, ends: done}
	other.q = p.queue(t, func(o *Options) { o.MaxHistory = all })
	stop := start(t, other.q, other)
	o := begin1(t, other.q, RetryOperation, ofStatus(history.Failed))
	if o.Matched != all {
		t.Fatalf("%d match", o.Matched)
	}
	ctx, cancel := context.WithCancel(t.Context())
	both := make(chan struct{})
	go func() { // beside the one that is at it
		defer close(both)
		for ctx.Err() == nil && q.operate(ctx, o.ID) {
		}
	}()
	eventually(t, "some are done", func() bool {
		now, err := q.Operation(t.Context(), o.ID)
		return err == nil && now.Done > all/10
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	cancel()
	<-both
	finishedAs(t, q, o.ID, all, 0)
	empty(t, q)
	eachTried(t, attempts(append(c.got(), other.got()...)), failed, 2)
}

func TestRetriesOfAnOperationKeepToTheRateLimit(t *testing.T) {
	p := onServer(t, common)
	f := &failing{}
	q, c := p.run(t, func(_ *Options, c *sink) { c.ends = f.end })
	limits := open("s1")
	limits.RatePerMinute = 20
	if err := q.Configure(t.Context(), []Limits{limits}); err != nil {
		t.Fatal(err)
	}
	failedOnce(t, q, 15, "s1")
	o := begin1(t, q, RetryOperation, ofStatus(history.Failed))
	finishedAs(t, q, o.ID, 15, 0)
	eventually(t, "the limit is used", func() bool { return len(c.got()) == 20 })
	eventually(t, "the subscription waits for the next window", func() bool {
		score := p.client.ZScore(t.Context(), q.shards[0].keys.ready(), "s1").Val()
		return score > float64(time.Now().Add(40*time.Second).UnixMilli())
	})
	if n := len(c.got()); n != 20 {
		t.Errorf("%d requests in a minute, 20 are allowed", n)
	}
	audited(t, q)
}

func TestAnOperationSkipsWhatHasNoRoomAndWhatIsOfAnotherStateByNow(t *testing.T) {
	p := onServer(t, common)
	f := &failing{}
	q, _ := p.run(t, func(_ *Options, c *sink) { c.ends = f.end })
	configure(t, q, "s1", "s2")
	failedOnce(t, q, 10, "s1")
	choice := ofStatus(history.Failed)
	chosen := chosenOf(t, q, choice)
	tight := open("s1")
	tight.Generation, tight.MaxBacklog, tight.Paused = 2, 4, true
	if err := q.Configure(t.Context(), []Limits{tight}); err != nil {
		t.Fatal(err)
	}
	if c, err := q.Retry(t.Context(), chosen[0].ID); err != nil || c.Outcome != Requeued {
		t.Fatalf("%+v %v", c, err)
	}
	o, err := q.Begin(t.Context(), Plan{Kind: RetryOperation, States: StatesOf(&choice)}, chosen)
	if err != nil {
		t.Fatal(err)
	}
	finishedAs(t, q, o.ID, 3, 7)
	audited(t, q)
}

func TestOperationsAreBounded(t *testing.T) {
	p := onServer(t, common)
	q := p.queue(t, nil) // nobody works
	choice := ofStatus(history.Failed)
	plan := Plan{Kind: RetryOperation, States: StatesOf(&choice)}
	one := Chosen{{ID: "d1"}}
	var last *Operation
	for range MaxOperations {
		o, err := q.Begin(t.Context(), plan, one)
		if err != nil {
			t.Fatal(err)
		}
		last = o
	}
	if _, err := q.Begin(t.Context(), plan, one); !errors.Is(err, ErrTooManyOperations) {
		t.Errorf("one too many: %v", err)
	}
	if o, err := q.Begin(t.Context(), plan, nil); err != nil || o.FinishedAt.IsZero() {
		t.Errorf("one without deliveries: %+v %v", o, err)
	}
	k := q.shards[0].keys
	for key, most := range map[string]time.Duration{
		k.operation(last.ID): OperationLifetime + OperationMemory, k.operationLeft(last.ID): OperationLifetime,
		k.operationCounts(last.ID): OperationLifetime + OperationMemory,
	} {
		if ttl := p.client.PTTL(t.Context(), key).Val(); ttl <= most-time.Minute || ttl > most {
			t.Errorf("%s stays for %v", key, ttl)
		}
	}
	if n := p.client.Keys(t.Context(), p.prefix+"*").Val(); len(n) != 3*MaxOperations+2 {
		t.Errorf("keys of what was refused are left: %v", n)
	}
}

// What an operation has not done when its time is over is left as it is.
func TestAnOperationWhoseTimeIsOverEnds(t *testing.T) {
	p := onServer(t, common)
	q := p.queue(t, nil)
	o, err := q.Begin(t.Context(), Plan{Kind: RetryOperation, States: "f"}, Chosen{{ID: "d1"}})
	if err != nil {
		t.Fatal(err)
	}
	k := q.shards[0].keys
	if err := p.client.Del(t.Context(), k.operationLeft(o.ID)).Err(); err != nil {
		t.Fatal(err)
	}
	for q.operateAll(t.Context()) {
	}
	o, err = q.Operation(t.Context(), o.ID)
	if err != nil || o.FinishedAt.IsZero() || o.Done+o.Skipped != 0 || o.Matched != 1 {
		t.Errorf("%+v %v", o, err)
	}
	if n := p.client.ZCard(t.Context(), k.operations()).Val(); n != 0 {
		t.Errorf("%d are under way", n)
	}
}
