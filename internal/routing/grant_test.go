// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

func annotations(projects, teams string) map[string]string {
	a := map[string]string{}
	if projects != "-" {
		a[v1alpha1.AnnotationAllowedProjects] = projects
	}
	if teams != "-" {
		a[v1alpha1.AnnotationAllowedTeams] = teams
	}
	return a
}

func TestARouteGetsWhatItsNamespaceGrants(t *testing.T) {
	// "-" stands for no annotation.
	cases := map[string]struct {
		projects, teams string
		filter          Filter
		event           event.Attributes
		want            bool
	}{
		"no annotation":                          {"-", "-", Filter{}, event.Attributes{Project: "P"}, false},
		"the project":                            {"P", "-", Filter{}, event.Attributes{Project: "P"}, true},
		"the project, whatever the team":         {"P", "-", Filter{}, event.Attributes{Project: "P", Team: "T"}, true},
		"one of the projects":                    {" N , P,", "-", Filter{}, event.Attributes{Project: "P"}, true},
		"another project":                        {"N,M", "-", Filter{}, event.Attributes{Project: "P"}, false},
		"a project that is spelled otherwise":    {"p", "-", Filter{}, event.Attributes{Project: "P"}, false},
		"an event without a project":             {"P", "-", Filter{}, event.Attributes{Team: "P"}, false},
		"all projects":                           {"*", "-", Filter{}, event.Attributes{Project: "P"}, true},
		"all projects, and none in the event":    {"*", "-", Filter{}, event.Attributes{}, true},
		"a star among names":                     {"N, *", "-", Filter{}, event.Attributes{Project: "P"}, true},
		"a star within a name is no star":        {"P*", "-", Filter{}, event.Attributes{Project: "PP"}, false},
		"an empty list":                          {"", "-", Filter{}, event.Attributes{Project: "P"}, false},
		"a list of nothing":                      {" , ", "*", Filter{}, event.Attributes{}, false},
		"the team":                               {"-", "T", Filter{}, event.Attributes{Team: "T"}, true},
		"another team":                           {"-", "S", Filter{}, event.Attributes{Team: "T"}, false},
		"an event without a team":                {"-", "T", Filter{}, event.Attributes{Project: "T"}, false},
		"the project but not the team":           {"P", "T", Filter{}, event.Attributes{Project: "P", Team: "S"}, false},
		"the team but not the project":           {"P", "T", Filter{}, event.Attributes{Project: "N", Team: "T"}, false},
		"both":                                   {"P", "T", Filter{}, event.Attributes{Project: "P", Team: "T"}, true},
		"the project that the filter asks for":   {"N,P", "-", Filter{Project: "P"}, event.Attributes{Project: "P"}, true},
		"another than the filter asks for":       {"N,P", "-", Filter{Project: "P"}, event.Attributes{Project: "N"}, false},
		"a filter on what is not granted":        {"N", "-", Filter{Project: "P"}, event.Attributes{Project: "P"}, false},
		"a filter on a team that is not":         {"*", "S", Filter{Team: "T"}, event.Attributes{Project: "P", Team: "T"}, false},
		"the filter's team, the grant's project": {"P", "-", Filter{Team: "T"}, event.Attributes{Project: "P", Team: "T"}, true},
		"the filter's team, another project":     {"P", "-", Filter{Team: "T"}, event.Attributes{Project: "N", Team: "T"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &Route{ID: "sub_1", Active: true, Events: []string{"*"}, Filter: c.filter}
			r.Restrict(GrantOf(annotations(c.projects, c.teams)))
			got := Empty().With([]*Route{r}, nil).Match("a.b", c.event)
			if (len(got) == 1) != c.want || len(got) > 1 {
				t.Errorf("matched %v, want a match: %v", got, c.want)
			}
		})
	}
}

func TestARouteThatIsGrantedNothingIsOnHoldAndSaysWhy(t *testing.T) {
	cases := map[string]struct {
		projects, teams string
		filter          Filter
		want            string // in the detail, "" for no hold
	}{
		"no annotation":                   {"-", "-", Filter{}, v1alpha1.AnnotationAllowedProjects + " or " + v1alpha1.AnnotationAllowedTeams},
		"an empty annotation":             {"", "-", Filter{}, v1alpha1.AnnotationAllowedProjects},
		"an empty annotation of teams":    {"*", "", Filter{}, v1alpha1.AnnotationAllowedTeams},
		"a filter on another project":     {"N", "-", Filter{Project: "P"}, `project "P"`},
		"a filter on another team":        {"N", "S", Filter{Team: "T"}, `team "T"`},
		"a filter on what is granted":     {"N", "-", Filter{Project: "N"}, ""},
		"no filter and something granted": {"N", "-", Filter{}, ""},
		"everything granted":              {"*", "*", Filter{Project: "P", Team: "T"}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &Route{ID: "sub_1", Namespace: "team-a", Active: true, Events: []string{"*"}, Filter: c.filter}
			r.Restrict(GrantOf(annotations(c.projects, c.teams)))
			if (r.Hold == v1alpha1.ReasonNotGranted) != (c.want != "") || !strings.Contains(r.HoldDetail, c.want) {
				t.Errorf("hold %q: %q, want %q", r.Hold, r.HoldDetail, c.want)
			}
		})
	}
}

func TestWithoutAskingForGrantsNothingIsRestricted(t *testing.T) {
	r := &Route{ID: "sub_1", Active: true, Events: []string{"*"}}
	r.Restrict(nil)
	if got := Empty().With([]*Route{r}, nil).Match("a.b", event.Attributes{}); len(got) != 1 || r.Hold != "" {
		t.Errorf("matched %v, hold %q", got, r.Hold)
	}
}

// Grants that are found under what they grant, and those that are too long for it, say the same.
func TestALongGrantSaysWhatAShortOneDoes(t *testing.T) {
	names := func(n int) string {
		list := []string{"x"}
		for i := range n {
			list = append(list, fmt.Sprintf("n%d", i))
		}
		return strings.Join(list, ",")
	}
	rapid.Check(t, func(t *rapid.T) {
		table, model := Empty(), map[string]*Route{}
		sizes := rapid.SampledFrom([]string{"-", "*", "", names(0), names(20), names(maxExpanded + 1)})
		for range rapid.IntRange(1, 6).Draw(t, "routes") {
			r := drawRoute(t)
			r.Restrict(GrantOf(annotations(sizes.Draw(t, "projects"), sizes.Draw(t, "teams"))))
			table = table.With([]*Route{r}, nil)
			model[r.ID] = r
		}
		for _, project := range []string{"", "x", "y", "n3", "n200"} {
			for _, team := range []string{"", "x", "y", "n3", "n200"} {
				a := event.Attributes{Project: project, Team: team, Severity: "x"}
				var want []*Route
				for _, r := range model {
					is := wants(r, "a.b", a) && r.Grant.Refuses(a) == ""
					if is {
						want = append(want, r)
					}
					if rule, _ := r.Explain("a.b", a); (rule == RuleNone) != is {
						t.Fatalf("%+v: the rule is %q, wanted: %v", a, rule, is)
					}
				}
				if diff := cmp.Diff(ids(want), ids(table.Match("a.b", a))); diff != "" {
					t.Fatalf("%+v: %s", a, diff)
				}
			}
		}
		gone := make([]string, 0, len(model))
		for id := range model {
			gone = append(gone, id)
		}
		slices.Sort(gone)
		table = table.With(nil, gone)
		if table.Len() != 0 || table.index.Len() != 0 || table.usage.Len() != 0 {
			t.Fatalf("left: %d routes, %d entries, %d patterns", table.Len(), table.index.Len(), table.usage.Len())
		}
	})
}

func FuzzGrant(f *testing.F) {
	f.Add("P, N", "*", "P", "")
	f.Add(",,*", "", "", "T")
	f.Fuzz(func(t *testing.T, projects, teams, project, team string) {
		r := &Route{ID: "sub_1", Active: true, Events: []string{"*"}}
		r.Restrict(GrantOf(annotations(projects, teams)))
		got := Empty().With([]*Route{r}, nil).Match("a.b", event.Attributes{Project: project, Team: team})
		passes := func(list, value string) bool {
			for part := range strings.SplitSeq(list, ",") {
				if part = strings.TrimSpace(part); part == "*" || (part != "" && part == value) {
					return true
				}
			}
			return false
		}
		want := (projects == "-" || passes(projects, project)) && (teams == "-" || passes(teams, team)) &&
			(projects != "-" || teams != "-")
		if (len(got) == 1) != want {
			t.Errorf("matched %v, want a match: %v", got, want)
		}
	})
}
