// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// model answers a filter as its documentation says.
func model(records []history.Record, f history.Filter) []string {
	var ids []string
	for i := range records {
		if f.Match(&records[i]) {
			ids = append(ids, records[i].ID)
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids
}

// longRig keeps so many days that a page may be put together from several spans of them.
func longRig(t *testing.T) *rig {
	t.Helper()
	r := unstartedRig(t, newDatabase(t), 60)
	r.start()
	r.awaitReady()
	return r
}

// crowd are records in which every value of each attribute meets the others, over 50 days.
func crowd(now time.Time) []history.Record {
	made := records(600, now)
	for i := range made {
		r := &made[i]
		r.ID = idAt(now.Add(-time.Duration(i/3) * 6 * time.Hour))
		r.SubscriptionID = []string{"sub_a", "sub_b", "sub_c", "sub_d"}[i%4]
		r.Namespace = []string{"team-a", "team-b", "team-c"}[i/4%3]
		r.EventID = []string{"evt_a", "evt_b", "evt_c"}[i/12%3]
		r.EventType = []string{"build.failed", "build.completed"}[i/36%2]
		r.Status = []history.Status{history.Success, history.Failed, history.Canceled}[i/7%3]
	}
	return made
}

func drawFilter(t *rapid.T, now time.Time) history.Filter {
	set := func(label string, values ...string) []string {
		if rapid.Bool().Draw(t, label+" open") {
			return nil
		}
		return rapid.SliceOfN(rapid.SampledFrom(values), 0, 4).Draw(t, label)
	}
	moment := func(label string) time.Time {
		if rapid.Bool().Draw(t, label+" open") {
			return time.Time{}
		}
		return now.Add(-time.Duration(rapid.IntRange(-10, 52*24).Draw(t, label)) * time.Hour)
	}
	return history.Filter{
		SubscriptionIDs: set("subscriptions", "sub_a", "sub_b", "sub_c", "sub_x"),
		Namespaces:      set("namespaces", "team-a", "team-b", "team-x"),
		EventID:         rapid.SampledFrom([]string{"", "", "", "evt_a", "evt_x"}).Draw(t, "event"),
		EventType:       rapid.SampledFrom([]string{"", "", "build.failed", "build"}).Draw(t, "type"),
		Statuses:        rapid.SliceOfN(rapid.SampledFrom(history.Statuses()), 0, 4).Draw(t, "statuses"),
		Since:           moment("since"), Until: moment("until"),
		// With a thousand the sets are too many probes, and the page is read by time.
		Limit: cmp.Or(rapid.SampledFrom([]int{0, 1, 7, 50, 1000}).Draw(t, "limit"), history.DefaultLimit),
	}
}

func TestPagesAreWhatTheModelSelects(t *testing.T) {
	r := longRig(t)
	now := time.Now()
	all := crowd(now)
	r.write(all...)
	byID := map[string]history.Record{}
	for i := range all {
		byID[all[i].ID] = history.Clean(all[i])
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := drawFilter(rt, now)
		var got []string
		for pages := 0; ; pages++ {
			page, err := r.List(t.Context(), f)
			if err != nil {
				rt.Fatal(err)
			}
			for i := range page.Records {
				got = append(got, page.Records[i].ID)
				if diff := gocmp.Diff(byID[page.Records[i].ID], page.Records[i]); diff != "" {
					rt.Fatal(diff)
				}
			}
			if page.Next == "" {
				break
			}
			if len(page.Records) != f.Limit || pages > len(all) {
				rt.Fatalf("a page of %d that is not the last, of a limit of %d", len(page.Records), f.Limit)
			}
			f.After = page.Next
		}
		f.After = ""
		if diff := gocmp.Diff(model(all, f), got); diff != "" {
			rt.Fatalf("%+v (-want +got):\n%s", f, diff)
		}
	})
}

func TestSoManyKeysThatAPageIsReadByTime(t *testing.T) {
	r := longRig(t)
	all := crowd(time.Now())
	r.write(all...)
	f := history.Filter{Namespaces: []string{"team-a"}, Limit: history.MaxLimit, EventType: "build.failed"}
	for range 1000 {
		f.SubscriptionIDs = append(f.SubscriptionIDs, idAt(time.Now()))
		f.Namespaces = append(f.Namespaces, idAt(time.Now()))
	}
	f.SubscriptionIDs = append(f.SubscriptionIDs, "sub_a")
	page, err := r.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range page.Records {
		got = append(got, page.Records[i].ID)
	}
	if diff := gocmp.Diff(model(all, f), got); diff != "" || len(got) == 0 {
		t.Errorf("%d records (-want +got):\n%s", len(got), diff)
	}
}

func TestACursorOutlivesItsRecord(t *testing.T) {
	r := longRig(t)
	all := crowd(time.Now())
	r.write(all[:300]...)
	first, err := r.List(t.Context(), history.Filter{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	r.value("DELETE FROM nexus_webhooks.deliveries WHERE id = $1::text::uuid", string(first.Next))
	r.write(record(time.Now()), record(time.Now()))
	next, err := r.List(t.Context(), history.Filter{Limit: 1000, After: first.Next})
	if err != nil || len(next.Records) != 290 {
		t.Errorf("%d records follow, error %v", len(next.Records), err)
	}
}
