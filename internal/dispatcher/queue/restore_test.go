package queue

import (
	"fmt"
	"strings"
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

// restoreD2 is a call of restore.lua for d2 of someEnded, with a payload of its own.
func restoreD2(r *rig) string {
	value := strings.TrimPrefix(pastD2, "d2=")
	value = strings.Replace(value, "|e1\n", "|e1#x\n", 1)
	return fmt.Sprint(r.run(restoreScript, "d2", "d9", r.most, r.bytes, retryMemory, value, "e1#x", "t\ne1"))
}

// What is restored is then as what was retried from the history: every key.
func TestRestoreScriptIsARetry(t *testing.T) {
	kept, gone := newRig(t), newRig(t)
	someEnded(kept)
	kept.file(filing{perSub: 2})
	want := fmt.Sprint(kept.run(retryScript, "d2", "d9", kept.most, kept.bytes, retryMemory))
	someEnded(gone)
	gone.file(filing{perSub: 1})
	if got := restoreD2(gone); got != want || got != "[0 d2]" {
		t.Errorf("answer %s, want %s", got, want)
	}
	state := kept.state()
	for key, content := range state {
		state[key] = strings.ReplaceAll(strings.ReplaceAll(content, "e1=t\ne1", "e1#x=t\ne1"), "|e1", "|e1#x")
	}
	state["refs"] = strings.ReplaceAll(state["refs"], "e1=", "e1#x=")
	if diff := cmp.Diff(state, gone.state()); diff != "" {
		t.Errorf("(-retried +restored):\n%s", diff)
	}
	gone.audit()
}

func TestRestoreScriptThatChangesNothing(t *testing.T) {
	forgotten := func(r *rig) {
		someEnded(r)
		r.file(filing{perSub: 1})
	}
	runScriptCases(t, map[string]scriptCase{
		"the same call again": {
			seed: func(r *rig) { forgotten(r); restoreD2(r) }, call: restoreD2, answer: "[0 d2]",
		},
		"there is no room for it": {
			seed: func(r *rig) { forgotten(r); r.most = 1 }, call: restoreD2, answer: "[3]",
		},
		"there is no room for its payload": {
			seed: func(r *rig) { forgotten(r); r.bytes = 7 }, call: restoreD2, answer: "[3]",
		},
		"its subscription is gone": {
			seed: func(r *rig) { forgotten(r); r.cancel("s1", 9) }, call: restoreD2, answer: "[3]",
		},
	})
}
