package queue

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/test/redistest"
)

func TestCopierScript(t *testing.T) {
	claim := func(dispatcher string, ms int) func(*rig) string {
		return func(r *rig) string { return fmt.Sprint(r.run(copierScript, dispatcher, ms)) }
	}
	held := func(r *rig) { claim("a", 5000)(r) }
	runScriptCases(t, map[string]scriptCase{
		"nobody had it":                {call: claim("a", 5000), answer: "[1]", want: map[string]string{"copier (ttl)": "a"}},
		"it is kept":                   {seed: held, call: claim("a", 5000), answer: "[1]"},
		"another one has it":           {seed: held, call: claim("b", 5000), answer: "[0]"},
		"it is given back":             {seed: held, call: claim("a", 0), answer: "[1]", want: map[string]string{"copier (ttl)": "-"}},
		"nobody gives back another's":  {seed: held, call: claim("b", 0), answer: "[0]"},
		"what nobody has is no matter": {call: claim("a", 0), answer: "[1]"},
	})
}

// outboxRig is a queue that copies, of whose subscription one record stays; its deliveries fail.
type outboxRig struct {
	*testing.T
	q       *Queue
	healthy atomic.Bool
	ids     []string
}

func newOutboxRig(t *testing.T, p place) *outboxRig {
	r := &outboxRig{T: t}
	r.q, _ = p.run(t, func(o *Options, c *sink) {
		o.MaxHistory, o.MaxOutboxBytes = 1, 1<<20
		c.ends = func(l Lease) Settlement {
			s := Settlement{Lease: l, Result: Fail, StatusCode: 410, Reason: ReasonGone}
			if r.healthy.Load() {
				s.Result, s.StatusCode, s.Reason = Done, 200, ""
			}
			s.Attempt = history.AppendAttempt(nil, &history.Attempt{
				Number: l.Attempt, StatusCode: s.StatusCode, Reason: s.Reason, Error: "an error",
			}, "https://a.example/", nil)
			return s
		}
	})
	limits := open("s1")
	limits.Namespace = "team"
	if err := r.q.Configure(t.Context(), []Limits{limits}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *outboxRig) deliver(n int) {
	r.Helper()
	for range n {
		e := publication(fmt.Sprintf("e%d", len(r.ids)), "s1")
		e.Targets[0].DeliveryID = uuid.Must(uuid.NewV7()).String()
		r.ids = append(r.ids, e.Targets[0].DeliveryID)
		publish(r.T, r.q, e)
		empty(r.T, r.q)
	}
}

// outbox is that of the subscription's shard.
func (r *outboxRig) outbox() *Outbox { return r.q.Outboxes()[shardOf("s1", r.q.Shards)] }

func (r *outboxRig) next() Copies {
	r.Helper()
	c, err := r.outbox().Next(r.Context())
	if err != nil || len(c.Unreadable) > 0 {
		r.Fatal(err, c.Unreadable)
	}
	return c
}

func all(string) bool { return true }

// waiting are the ids of what is selected.
func (r *outboxRig) waiting(f history.Filter) (ids []string) {
	r.Helper()
	found, err := r.q.Waiting(r.Context(), f, all)
	if err != nil {
		r.Fatal(err)
	}
	for i := range found {
		ids = append(ids, found[i].ID)
	}
	slices.Sort(ids)
	return ids
}

func TestOutbox(t *testing.T) {
	cluster := redistest.ClusterForTest(t)
	onCluster := func(t *testing.T) place {
		client, err := Connect(cluster.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return place{client, newPrefix(), 4}
	}
	for name, at := range map[string]func(*testing.T) place{
		"server": func(t *testing.T) place { return onServer(t, common) }, "cluster": onCluster,
	} {
		for name2, test := range map[string]func(*outboxRig){
			"what has ended is read with its bodies, and goes once it is copied": testCopies,
			"what left the history is found until it is copied":                  testWaiting,
			"a retry makes earlier ends old":                                     testSuperseded,
		} {
			t.Run(name+": "+name2, func(t *testing.T) { test(newOutboxRig(t, at(t))) })
		}
	}
}

func testCopies(r *outboxRig) {
	if c := r.next(); len(c.Records) > 0 {
		r.Errorf("there is %+v", c)
	}
	r.deliver(3)
	c := r.next()
	var want []history.Record
	for i, id := range r.ids {
		want = append(want, history.Record{
			ID: id, Round: 1, SubscriptionID: "s1", Namespace: "team", EventID: fmt.Sprintf("e%d", i),
			EventType: "build.completed", Status: history.Failed, Reason: ReasonGone, Error: "an error",
			RequestURL: "https://a.example/", Body: history.RefOf(fmt.Appendf(nil, `{"id":"e%d"}`, i)),
			Attempts: []history.Attempt{{Number: 1, StatusCode: 410, Reason: ReasonGone, Error: "an error"}},
		})
	}
	if diff := cmp.Diff(want, c.Records, cmpopts.IgnoreFields(history.Record{}, "CompletedAt")); diff != "" {
		r.Errorf("records (-want +got):\n%s", diff)
	}
	for i := range c.Records {
		if got, want := string(c.Bodies[c.Records[i].Body]), fmt.Sprintf(`{"id":"e%d"}`, i); got != want {
			r.Errorf("body %q, want %q", got, want)
		}
	}
	if b, err := r.q.Backlog(r.Context()); err != nil || b.Age <= 0 || b.Age > time.Minute || b.Bytes < 300 {
		r.Errorf("backlog %+v, %v", b, err)
	}
	r.deliver(1)
	for range 2 {
		if err := r.outbox().Copied(r.Context(), c); err != nil {
			r.Fatal(err)
		}
	}
	if rest := r.next(); len(rest.Records) != 1 || rest.Records[0].ID != r.ids[3] {
		r.Errorf("what is left is %+v", rest.Records)
	}
	audited(r.T, r.q)
}

func testWaiting(r *outboxRig) {
	r.deliver(3)
	if diff := cmp.Diff(r.ids, r.waiting(history.Filter{})); diff != "" {
		r.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.waiting(history.Filter{Statuses: []history.Status{history.Success}}); got != nil {
		r.Errorf("of another status: %v", got)
	}
	_, past, err := r.q.Find(r.Context(), r.ids[0])
	found, err2 := r.q.FindWaiting(r.Context(), r.ids[0])
	if err := errors.Join(err, err2); err != nil || past != nil || found == nil || len(found.Attempts) != 1 {
		r.Errorf("in the history %+v, in the outbox %+v, %v", past, found, err)
	}
	if err := r.outbox().Copied(r.Context(), r.next()); err != nil {
		r.Fatal(err)
	}
	if found, err := r.q.FindWaiting(r.Context(), r.ids[0]); err != nil || found != nil || r.waiting(history.Filter{}) != nil {
		r.Errorf("after it is copied: %+v, %v", found, err)
	}
}

func testSuperseded(r *outboxRig) {
	r.deliver(2)
	before := r.next().Records
	r.healthy.Store(true)
	retriedOnce(r.T, r.q, r.ids[1]) // the one that is in the history
	superseded, err := r.q.Superseded(r.Context(), before)
	want := map[string]bool{r.ids[0]: false, r.ids[1]: true}
	if diff := cmp.Diff(want, superseded); err != nil || diff != "" {
		r.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	if got := r.waiting(history.Filter{Statuses: []history.Status{history.Failed}}); !slices.Equal(got, r.ids[:1]) {
		r.Errorf("failed are %v", got)
	}
	found, err := r.q.FindWaiting(r.Context(), r.ids[1])
	if err != nil || found.Round != 2 || found.Status != history.Success {
		r.Errorf("the latest end is %+v, %v", found, err)
	}
}

func TestTooMuchThatWaitsIsToldAndNotLookedThrough(t *testing.T) {
	p := onServer(t, common)
	q := p.queue(t, nil)
	pipe := p.client.Pipeline()
	for i := range maxWaiting {
		pipe.Do(t.Context(), "XADD", q.shards[0].keys.prefix+"ended", "*", fmt.Sprintf("%d|1|s|1|1||n|s|t|e", i), "")
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Waiting(t.Context(), history.Filter{}, all); !errors.Is(err, ErrBehind) {
		t.Errorf("waiting: %v", err)
	}
	if _, err := q.FindWaiting(t.Context(), "x"); !errors.Is(err, ErrBehind) {
		t.Errorf("find: %v", err)
	}
}
