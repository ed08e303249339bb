// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history_test

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/event"
)

const id = "0190a5c0-8c00-7000-8000-000000000001"

func valid() history.Record {
	return history.Record{
		ID: id, Round: 1, SubscriptionID: "sub_1", Namespace: "team-a", EventID: "evt_1", EventType: "build.failed",
		Status: history.Success, CompletedAt: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC),
	}
}

func TestNewDeliveryIDsTellTheirTime(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	r := history.Record{ID: event.NewDeliveryID()}
	if at := r.CreatedAt(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("%s was made at %s, before %s or in the future", r.ID, at, before)
	}
}

func FuzzParseID(f *testing.F) {
	for _, seed := range []string{id, strings.ToUpper(id), "", "{" + id + "}", strings.Replace(id, "-7", "-4", 1),
		strings.ReplaceAll(id, "-", ""), strings.Replace(id, "-8", "-c", 1), id[:35] + "g"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := history.ParseID(text)
		want, wantErr := uuid.Parse(text)
		ok := wantErr == nil && want.String() == text && want.Version() == 7 && want.Variant() == uuid.RFC4122
		if (err == nil) != ok {
			t.Fatalf("%q: error %v, but by the other parser it is valid: %t", text, err, ok)
		}
		if ok && (got != history.UUID(want) || got.String() != text) {
			t.Fatalf("%q was read as %s", text, got)
		}
	})
}

func TestFirstIDDividesTheIDsAtItsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(-5, 1<<50).Draw(t, "at"))
		var other history.UUID
		copy(other[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if rapid.Bool().Draw(t, "near") {
			other = history.FirstID(at.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "ms")) * time.Millisecond))
			other[15] = rapid.Byte().Draw(t, "last")
		}
		first := history.FirstID(at)
		if got, want := slices.Compare(other[:], first[:]) >= 0, !other.Time().Before(at); got != want {
			t.Fatalf("%s (%s) at or after %s (%s): %t, want %t", other, other.Time(), first, at, got, want)
		}
	})
}

func TestCheckNamesWhatCannotBeKept(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*history.Record)
		want   string
	}{
		"a good one":                     {func(*history.Record) {}, ""},
		"an id that is no UUID":          {func(r *history.Record) { r.ID = "x" }, `id "x"`},
		"a status that is not final":     {func(r *history.Record) { r.Status = "pending" }, `status "pending"`},
		"no round":                       {func(r *history.Record) { r.Round = 0 }, "round 0"},
		"no time of completion":          {func(r *history.Record) { r.CompletedAt = time.Time{} }, "completion"},
		"a replay of something else":     {func(r *history.Record) { r.ReplayOf = "all" }, `replay of "all"`},
		"no subscription":                {func(r *history.Record) { r.SubscriptionID = "" }, "subscription id"},
		"a namespace with NUL":           {func(r *history.Record) { r.Namespace = "a\x00b" }, "namespace"},
		"an event id that is no text":    {func(r *history.Record) { r.EventID = "\xff" }, "event id"},
		"an event type that is too long": {func(r *history.Record) { r.EventType = strings.Repeat("x", 257) }, "event type"},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid()
			test.change(&r)
			err := r.Check()
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want an error about %q", err, test.want)
			}
		})
	}
}

func TestCleanCutsAndTidiesWithoutTouchingTheOriginal(t *testing.T) {
	headers := map[string]string{"X-Nexus-Event": "a\x00b\xffc"}
	body := []byte(strings.Repeat("\x00\xff", 600))
	r := valid()
	r.Error = strings.Repeat("ä", 600)
	r.Attempts = []history.Attempt{
		{Number: 2, Duration: -1, StatusCode: 70000},
		{Number: 1, ResponseBody: body, RequestHeaders: headers, Duration: 1500, StartedAt: time.Unix(1, 1999).In(time.FixedZone("x", 60))},
		{Number: 1, Error: "twice"},
	}
	want := valid()
	want.Error = strings.Repeat("ä", 512)
	want.Attempts = []history.Attempt{
		{Number: 1, ResponseBody: body[:1000], RequestHeaders: map[string]string{"X-Nexus-Event": "a�b�c"},
			Duration: time.Microsecond, StartedAt: time.Unix(1, 1000).UTC()},
		{Number: 2, StatusCode: 999},
	}
	if diff := cmp.Diff(want, history.Clean(r)); diff != "" {
		t.Error("cleaned (-want +got):\n" + diff)
	}
	if headers["X-Nexus-Event"] != "a\x00b\xffc" || r.Attempts[0].Number != 2 {
		t.Error("the original was changed")
	}
}

func TestCleaningTwiceIsCleaningOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })
		r := history.Record{Error: bytes.Draw(t, "error"), RequestURL: bytes.Draw(t, "url"),
			CompletedAt: time.Unix(rapid.Int64().Draw(t, "completed"), 0)}
		for range rapid.IntRange(0, 200).Draw(t, "attempts") {
			r.Attempts = append(r.Attempts, history.Attempt{Number: len(r.Attempts) * 7 % 200,
				RequestHeaders: map[string]string{bytes.Draw(t, "name"): bytes.Draw(t, "value")}})
		}
		once := history.Clean(r)
		if diff := cmp.Diff(once, history.Clean(once)); diff != "" {
			t.Fatal("once and twice:\n" + diff)
		}
		if !utf8.ValidString(once.Error) || len(once.Attempts) > history.MaxAttempts {
			t.Fatalf("not clean: %q, %d attempts", once.Error, len(once.Attempts))
		}
	})
}

func TestMergeKeepsTheLaterRoundAndAllAttemptsInAnyOrder(t *testing.T) {
	first, second, third := valid(), valid(), valid()
	first.Status, first.Attempts = history.Failed, []history.Attempt{{Number: 1}, {Number: 2, Error: "of the first round"}}
	second.Round, second.Status = 2, history.Canceled
	third.Round, third.Attempts = 3, []history.Attempt{{Number: 2, Error: "of the third"}, {Number: 3, StatusCode: 200}}
	want := third
	want.Attempts = []history.Attempt{{Number: 1}, {Number: 2, Error: "of the third"}, {Number: 3, StatusCode: 200}}
	records := []history.Record{first, second, third}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}, {0, 0, 1, 2, 1, 0}} {
		got := records[order[0]]
		for _, i := range order[1:] {
			got = history.Merge(got, records[i])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in order %v (-want +got):\n%s", order, diff)
		}
	}
}

func TestFilterMatchesWhatItSets(t *testing.T) {
	r := valid()
	at := r.CreatedAt()
	for name, test := range map[string]struct {
		filter history.Filter
		want   bool
	}{
		"nothing set":                    {history.Filter{}, true},
		"its subscription among others":  {history.Filter{SubscriptionIDs: []string{"sub_0", "sub_1"}}, true},
		"another subscription":           {history.Filter{SubscriptionIDs: []string{"sub_0"}}, false},
		"no subscription at all":         {history.Filter{SubscriptionIDs: []string{}}, false},
		"its namespace":                  {history.Filter{Namespaces: []string{"team-a"}}, true},
		"another namespace":              {history.Filter{Namespaces: []string{"team-b"}}, false},
		"no namespace at all":            {history.Filter{Namespaces: []string{}}, false},
		"another event":                  {history.Filter{EventID: "evt_2"}, false},
		"another type":                   {history.Filter{EventType: "build"}, false},
		"its status among others":        {history.Filter{Statuses: []history.Status{history.Failed, history.Success}}, true},
		"another status":                 {history.Filter{Statuses: []history.Status{history.Failed}}, false},
		"since its time":                 {history.Filter{Since: at}, true},
		"since a little later":           {history.Filter{Since: at.Add(time.Microsecond)}, false},
		"until its time":                 {history.Filter{Until: at}, false},
		"until a little later":           {history.Filter{Until: at.Add(time.Microsecond)}, true},
		"behind itself":                  {history.Filter{After: history.CursorBehind(&r)}, false},
		"behind a later one":             {history.Filter{After: "0190a5c0-8c00-7000-8000-000000000002"}, true},
		"its namespace, another's event": {history.Filter{Namespaces: []string{"team-a"}, EventID: "evt_2"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.filter.Check(); err != nil {
				t.Fatal(err)
			}
			if got := test.filter.Match(&r); got != test.want {
				t.Errorf("matches: %t, want %t", got, test.want)
			}
		})
	}
}

func TestFilterCheckRefusesWhatHasNoMeaning(t *testing.T) {
	for name, filter := range map[string]history.Filter{
		"a negative limit":       {Limit: -1},
		"a limit beyond a page":  {Limit: history.MaxLimit + 1},
		"a status of the queue":  {Statuses: []history.Status{"pending"}},
		"a cursor of its own":    {After: "page-2"},
		"a cursor with NUL":      {After: "\x00"},
		"an id in upper case":    {After: history.Cursor(strings.ToUpper(id))},
		"a UUID of another kind": {After: "0190a5c0-8c00-4000-8000-000000000001"},
	} {
		t.Run(name, func(t *testing.T) {
			if filter.Check() == nil {
				t.Error("it was taken")
			}
		})
	}
}
