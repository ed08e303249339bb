package queue

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// gone delivers, copies, and returns the record of a delivery that the history no longer has.
func (r *outboxRig) gone() history.Record {
	r.Helper()
	first := len(r.ids)
	r.deliver(3)
	c := r.next()
	if err := r.outbox().Copied(r.Context(), c); err != nil {
		r.Fatal(err)
	}
	if open, ended, err := r.q.Find(r.Context(), r.ids[first]); open != nil || ended != nil || err != nil {
		r.Fatalf("it is there still: %+v %+v %v", open, ended, err)
	}
	return c.Records[0]
}

func (r *outboxRig) restore(record *history.Record) Changed {
	r.Helper()
	changed, err := r.q.Restore(r.Context(), record, []byte(`{"restored":1}`))
	if err != nil {
		r.Fatal(err)
	}
	return changed
}

func TestOneThatFailedAndLeftTheHistoryIsRetriedUnderItsID(t *testing.T) {
	r := newOutboxRig(t, onServer(t, common))
	before := r.gone()
	r.healthy.Store(true)
	if c := r.restore(&before); c != (Changed{Requeued, before.ID}) {
		t.Fatalf("%+v", c)
	}
	empty(t, r.q)
	c := r.next()
	want := before
	want.Round, want.Status, want.Reason, want.Error = 2, history.Success, "", ""
	want.Attempts = append(want.Attempts, history.Attempt{Number: 2, StatusCode: 200, Error: "an error"})
	want.Body = history.RefOf([]byte(`{"restored":1}`))
	ignored := cmpopts.IgnoreFields(history.Record{}, "CompletedAt", "Error")
	if diff := cmp.Diff([]history.Record{want}, c.Records, ignored); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := r.outbox().Copied(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	r.gone() // with others, its body goes
	audited(t, r.q)
}

func TestOneThatSucceededAndLeftTheHistoryIsRepeated(t *testing.T) {
	r := newOutboxRig(t, onServer(t, common))
	r.healthy.Store(true)
	before := r.gone()
	changed := r.restore(&before)
	if changed.Outcome != Requeued || changed.ID == before.ID {
		t.Fatalf("%+v", changed)
	}
	empty(t, r.q)
	c := r.next()
	if len(c.Records) != 1 || c.Records[0].ID != changed.ID || c.Records[0].ReplayOf != before.ID || c.Records[0].Round != 1 {
		t.Errorf("%+v", c.Records)
	}
}

func TestWhatCannotBeRestoredLeavesNothing(t *testing.T) {
	r := newOutboxRig(t, onServer(t, common))
	before := r.gone()
	if err := r.q.Cancel(t.Context(), []string{"s1"}); err != nil {
		t.Fatal(err)
	}
	keys := func() []string { return r.q.client.HKeys(t.Context(), r.outbox().s.keys.prefix+"payloads").Val() }
	payloads := keys()
	if c := r.restore(&before); c.Outcome != Unqueueable {
		t.Errorf("%+v", c)
	}
	if diff := cmp.Diff(payloads, keys()); diff != "" {
		t.Errorf("payloads (-before +after):\n%s", diff)
	}
	audited(t, r.q)
}

func TestRestoringTwiceRetriesOnce(t *testing.T) {
	r := newOutboxRig(t, onServer(t, common))
	before := r.gone()
	limits := open("s1")
	limits.Namespace, limits.Generation, limits.Paused = "team", 2, true
	if err := r.q.Configure(t.Context(), []Limits{limits}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c := r.restore(&before); c != (Changed{Requeued, before.ID}) {
			t.Fatalf("%+v", c)
		}
	}
	if n := size(t, r.q); n != 1 {
		t.Errorf("%d wait", n)
	}
	audited(t, r.q)
}
