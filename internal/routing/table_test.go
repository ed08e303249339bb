// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nexus.io/webhooks/internal/event"
)

// wants is the rule in its plainest words, the reference for Match.
func wants(r *Route, eventType string, a event.Attributes) bool {
	passes := func(filter, attribute string) bool { return filter == "" || filter == attribute }
	return r.Active &&
		slices.ContainsFunc(r.Events, func(p string) bool { return matches(p, eventType) }) &&
		passes(r.Filter.Project, a.Project) && passes(r.Filter.Team, a.Team) &&
		(len(r.Filter.Severities) == 0 || a.Severity != "" && slices.Contains(r.Filter.Severities, a.Severity))
}

func matches(pattern, eventType string) bool {
	if family, ok := strings.CutSuffix(pattern, ".*"); ok && !strings.Contains(family, ".") {
		return pattern == eventType || strings.HasPrefix(eventType, family+".")
	}
	return pattern == "*" || pattern == eventType
}

func ids(routes []*Route) []string {
	out := make([]string, 0, len(routes))
	for _, r := range routes {
		out = append(out, r.ID)
	}
	slices.Sort(out)
	return out
}

func TestMatchFollowsTheRules(t *testing.T) {
	cases := map[string]struct {
		route     Route
		eventType string
		event     event.Attributes
		want      bool
	}{
		"an exact type":                                 {Route{Events: []string{"build.failed"}}, "build.failed", event.Attributes{}, true},
		"another type":                                  {Route{Events: []string{"build.failed"}}, "build.completed", event.Attributes{}, false},
		"a family":                                      {Route{Events: []string{"build.*"}}, "build.failed", event.Attributes{}, true},
		"a family whose name only begins alike":         {Route{Events: []string{"build.*"}}, "builder.failed", event.Attributes{}, false},
		"every type":                                    {Route{Events: []string{"*"}}, "build.failed", event.Attributes{}, true},
		"a paused route":                                {Route{Paused: true, Events: []string{"*"}}, "a.b", event.Attributes{}, true},
		"a route on hold":                               {Route{Hold: "SecretNotFound", Events: []string{"*"}}, "a.b", event.Attributes{}, true},
		"the project of the filter":                     {Route{Events: []string{"*"}, Filter: Filter{Project: "P"}}, "a.b", event.Attributes{Project: "P"}, true},
		"another project":                               {Route{Events: []string{"*"}, Filter: Filter{Project: "P"}}, "a.b", event.Attributes{Project: "p"}, false},
		"no project where the filter asks for one":      {Route{Events: []string{"*"}, Filter: Filter{Project: "P"}}, "a.b", event.Attributes{Team: "P"}, false},
		"one of the severities":                         {Route{Events: []string{"*"}, Filter: Filter{Severities: []string{"critical", "high"}}}, "a.b", event.Attributes{Severity: "high"}, true},
		"no severity where the filter asks for some":    {Route{Events: []string{"*"}, Filter: Filter{Severities: []string{"high"}}}, "a.b", event.Attributes{}, false},
		"every part of the filter":                      {Route{Events: []string{"*"}, Filter: Filter{Project: "P", Team: "T", Severities: []string{"s"}}}, "a.b", event.Attributes{Project: "P", Team: "T", Severity: "s"}, true},
		"all parts of the filter but one":               {Route{Events: []string{"*"}, Filter: Filter{Project: "P", Team: "T", Severities: []string{"s"}}}, "a.b", event.Attributes{Project: "P", Team: "T", Severity: "x"}, false},
		"the project and the team the other way around": {Route{Events: []string{"*"}, Filter: Filter{Project: "P", Team: "T"}}, "a.b", event.Attributes{Project: "T", Team: "P"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.route.ID, c.route.Active = "sub_1", true
			got := Empty().With([]*Route{&c.route}, nil).Match(c.eventType, c.event)
			if (len(got) == 1) != c.want || len(got) > 1 {
				t.Errorf("matched %v, want a match: %v", got, c.want)
			}
		})
	}
}

func TestInactiveRouteIsFoundButNotMatched(t *testing.T) {
	table := Empty().With([]*Route{{ID: "sub_1", Events: []string{"*"}}}, nil)
	if got := table.Match("a.b", event.Attributes{}); len(got) != 0 {
		t.Errorf("matched %v", got)
	}
	if table.Route("sub_1") == nil || table.Len() != 1 || table.CountByType("a.b") != 0 {
		t.Errorf("route %v, len %d, count %d", table.Route("sub_1"), table.Len(), table.CountByType("a.b"))
	}
}

// drawRoute makes routes from few words, so that much matches, overlaps and collides.
func drawRoute(t *rapid.T) *Route {
	word := rapid.SampledFrom([]string{"", "x", "y"})
	patterns := rapid.SampledFrom([]string{"*", "a.*", "a.b", "a.c", "b.*", "b.c"})
	severities := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID[string])
	return &Route{
		ID:     rapid.StringMatching("sub_[0-9]").Draw(t, "id"),
		Active: rapid.IntRange(0, 4).Draw(t, "active") > 0,
		Events: minimise(rapid.SliceOfN(patterns, 1, 4).Draw(t, "events")),
		Filter: Filter{Project: word.Draw(t, "project"), Team: word.Draw(t, "team"),
			Severities: severities.Draw(t, "severities")},
	}
}

// compareMatches checks what an event of the type matches, whatever its attributes, and the reasons why not.
func compareMatches(t *rapid.T, table *Table, model map[string]*Route, eventType string) {
	for i := range 27 {
		word := []string{"", "x", "y"}
		a := event.Attributes{Project: word[i%3], Team: word[i/3%3], Severity: word[i/9]}
		var want []*Route
		for _, r := range model {
			is := wants(r, eventType, a)
			if is {
				want = append(want, r)
			}
			if rule, reason := r.Explain(eventType, a); (rule == RuleNone) != is || (reason == "") != is {
				t.Fatalf("%s %+v: the rule is %q (%s), wanted: %v", eventType, a, rule, reason, is)
			}
		}
		if diff := cmp.Diff(ids(want), ids(table.Match(eventType, a))); diff != "" {
			t.Fatalf("%s %+v: %s", eventType, a, diff)
		}
	}
}

// compare checks everything that a table answers against a plain map of the same routes.
func compare(t *rapid.T, table *Table, model map[string]*Route) {
	for _, eventType := range []string{"a.b", "a.c", "b.c", "c.d", "a.*", "*", "a", "a.b.c", ""} {
		compareMatches(t, table, model, eventType)
		n := 0
		for _, r := range model {
			if r.Active && slices.ContainsFunc(r.Events, func(p string) bool { return matches(p, eventType) }) {
				n++
			}
		}
		if got := table.CountByType(eventType); got != n {
			t.Fatalf("%d routes for %s, want %d", got, eventType, n)
		}
	}
	var all []string
	for r := range table.All() {
		all = append(all, r.ID)
		if table.Route(r.ID) != model[r.ID] {
			t.Fatalf("route %s is another one", r.ID)
		}
	}
	if !slices.IsSorted(all) || len(all) != len(model) || table.Len() != len(model) {
		t.Fatalf("%d of %d routes, sorted: %v", len(all), len(model), slices.IsSorted(all))
	}
}

func TestTableEqualsThePlainLoop(t *testing.T) {
	hashes := map[string]func(string) uint64{
		"with a good hash":            hashText,
		"with a hash of two values":   func(s string) uint64 { return uint64(len(s) & 1) },
		"where every sum is the same": func(string) uint64 { return 0 },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				table, model := newTable(hash), map[string]*Route{}
				for range rapid.IntRange(1, 8).Draw(t, "changes") {
					before, kept := table, cloneMap(model)
					upserts := rapid.SliceOfN(rapid.Custom(drawRoute), 0, 4).Draw(t, "upserts")
					removed := rapid.SliceOfN(rapid.StringMatching("sub_[0-9]"), 0, 3).Draw(t, "removed")
					table = table.With(upserts, removed)
					for _, id := range removed {
						delete(model, id)
					}
					for _, r := range upserts {
						model[r.ID] = r
					}
					compare(t, before, kept)
				}
				compare(t, table, model)
			})
		})
	}
}

func cloneMap(m map[string]*Route) map[string]*Route {
	out := make(map[string]*Route, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func TestEqualRoutesLeaveNothingBehind(t *testing.T) {
	table := Empty()
	for range 3 {
		table = table.With([]*Route{manyRoute(1), manyRoute(2)}, nil)
	}
	table = table.With(nil, []string{manyRoute(1).ID, manyRoute(2).ID})
	if table.Len() != 0 || table.index.Len() != 0 || table.usage.Len() != 0 {
		t.Errorf("left: %d routes, %d entries, %d patterns", table.Len(), table.index.Len(), table.usage.Len())
	}
}

// TestReadersOfOldTablesSeeNoChange is for the race detector: tables are read and forked while others change.
func TestReadersOfOldTablesSeeNoChange(t *testing.T) {
	const routes, changes, readers = 2000, 300, 4
	base := Empty().With(manyRoutes(routes), nil)
	stop := make(chan struct{})
	tables := make(chan *Table, readers)
	var reading, writing sync.WaitGroup
	for range readers {
		reading.Go(func() {
			table := base
			for {
				select {
				case <-stop:
					return
				case table = <-tables:
				default:
				}
				n := table.Len()
				if got := len(table.Match("build.completed", event.Attributes{Project: "p1", Severity: "high"})); got == 0 {
					t.Error("nothing matched")
				}
				counted := 0
				for range table.All() {
					counted++
				}
				if counted != n {
					t.Errorf("walked %d of %d routes", counted, n)
				}
			}
		})
	}
	for range 2 {
		writing.Go(func() {
			table := base
			for i := range changes {
				table = table.With([]*Route{manyRoute(i), manyRoute(routes + i)}, []string{manyRoute(i + 1).ID})
				select {
				case tables <- table:
				default:
				}
				_ = base.With([]*Route{manyRoute(i)}, nil)
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	if base.Len() != routes {
		t.Errorf("the first table has %d routes", base.Len())
	}
}

// manyRoute makes route i of a large cluster: one in ten wants everything of its own type and project.
func manyRoute(i int) *Route {
	return &Route{
		ID: fmt.Sprintf("sub_%012x", i), Active: true, Endpoint: ParseEndpoint("https://app.example/"),
		Events: []string{"build.completed", "release.*"},
		Filter: Filter{Project: fmt.Sprintf("p%d", i/10), Severities: []string{"critical", "high"}},
	}
}

func manyRoutes(n int) []*Route {
	routes := make([]*Route, n)
	for i := range routes {
		routes[i] = manyRoute(i)
	}
	return routes
}

func FuzzMatch(f *testing.F) {
	f.Add("build.completed", "build.*", "build.completed", "P", "P", "T", "T", "high", "high")
	f.Add("*", "*", "a.*", "", "", "", "", "", "")
	f.Add("a.*", "a.*", "*", "P", "", "T", "", "s", "")
	f.Add("a.b.c", "a.b.*", "a.*", "", "P", "", "T", "", "s")
	f.Fuzz(func(t *testing.T, eventType, p1, p2, project, hasProject, team, hasTeam, severity, hasSeverity string) {
		r := &Route{ID: "sub_1", Active: true, Events: minimise([]string{p1, p2}), Filter: Filter{Project: project, Team: team}}
		if severity != "" {
			r.Filter.Severities = []string{severity}
		}
		a := event.Attributes{Project: hasProject, Team: hasTeam, Severity: hasSeverity}
		got := Empty().With([]*Route{r}, nil).Match(eventType, a)
		if len(got) > 1 || (len(got) == 1) != wants(r, eventType, a) {
			t.Errorf("matched %d times, want a match: %v", len(got), wants(r, eventType, a))
		}
		unminimised := &Route{Active: true, Events: []string{p1, p2}, Filter: r.Filter}
		if wants(r, eventType, a) != wants(unminimised, eventType, a) {
			t.Errorf("minimised to %q, which means something else", r.Events)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("%d routes, 10 match", n), func(b *testing.B) {
			table := Empty().With(manyRoutes(n), nil)
			a := event.Attributes{Project: "p0", Team: "platform", Severity: "high"}
			b.ReportAllocs()
			for b.Loop() {
				if len(table.Match("build.completed", a)) != 10 {
					b.Fatal("not 10 matches")
				}
			}
		})
	}
}

func BenchmarkWith(b *testing.B) {
	table := Empty().With(manyRoutes(100_000), nil)
	changed := []*Route{manyRoute(50_000)}
	b.ReportAllocs()
	for b.Loop() {
		table = table.With(changed, nil)
	}
}

func TestActiveRoutesAreCounted(t *testing.T) {
	route := func(id string, active bool) *Route { return &Route{ID: id, Active: active, Events: []string{"*"}} }
	count := func(what string, table *Table, want int) {
		t.Helper()
		if table.Active() != want {
			t.Errorf("%s: %d are active, want %d", what, table.Active(), want)
		}
	}
	first := Empty().With([]*Route{route("a", true), route("b", true), route("c", false)}, nil)
	count("one of three is not active", first, 2)
	count("one stops and one begins", first.With([]*Route{route("a", false), route("c", true)}, nil), 2)
	count("one comes again", first.With([]*Route{route("a", true)}, nil), 2)
	count("two go, one of them unknown", first.With(nil, []string{"a", "no"}), 1)
	count("the table before is as it was", first, 2)
}
