// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"slices"
	"strings"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// Grant is what the Namespace of a route lets it have. An event passes where its project and its team do.
type Grant struct {
	Projects, Teams Allowed
}

// Allowed is the values of an attribute that pass: Any passes everything, also what lacks the attribute; else only what
// is in Names does.
type Allowed struct {
	Any   bool
	Names []string // sorted, without duplicates
}

// GrantOf reads the annotations of a Namespace. One that is not there restricts nothing, if the other one is; without
// both, nothing passes.
func GrantOf(annotations map[string]string) *Grant {
	projects, byProject := annotations[v1alpha1.AnnotationAllowedProjects]
	teams, byTeam := annotations[v1alpha1.AnnotationAllowedTeams]
	switch {
	case byProject && byTeam:
		return &Grant{parseAllowed(projects), parseAllowed(teams)}
	case byProject:
		return &Grant{parseAllowed(projects), Allowed{Any: true}}
	case byTeam:
		return &Grant{Allowed{Any: true}, parseAllowed(teams)}
	default:
		return &Grant{}
	}
}

func parseAllowed(list string) Allowed {
	var a Allowed
	for name := range strings.SplitSeq(list, ",") {
		switch name = strings.TrimSpace(name); name {
		case "":
		case "*":
			return Allowed{Any: true}
		default:
			a.Names = append(a.Names, name)
		}
	}
	slices.Sort(a.Names)
	a.Names = slices.Compact(a.Names)
	return a
}

// Allows tells whether a value passes; "" is an event that lacks the attribute.
func (a Allowed) Allows(value string) bool {
	if a.Any {
		return true
	}
	_, found := slices.BinarySearch(a.Names, value)
	return found
}

// Refuses says which annotation keeps an event from a route, "" where the grant lets it pass. Without a grant
// everything does: nobody asked for one.
func (g *Grant) Refuses(a event.Attributes) (annotation string) {
	switch {
	case g == nil:
		return ""
	case !g.Projects.Allows(a.Project):
		return v1alpha1.AnnotationAllowedProjects
	case !g.Teams.Allows(a.Team):
		return v1alpha1.AnnotationAllowedTeams
	default:
		return ""
	}
}

// Restrict gives a route that is not in a table yet only the events that its Namespace grants. Where that leaves none
// of those that it asks for, it says so in Hold, and what waits from before waits on. A nil grant restricts nothing.
func (r *Route) Restrict(g *Grant) {
	r.Grant = g
	if detail := r.ungranted(); detail != "" {
		r.Hold, r.HoldDetail = v1alpha1.ReasonNotGranted, detail
	}
}

// ungranted says why no event at all can pass, "" if one can.
func (r *Route) ungranted() string {
	g := r.Grant
	if g == nil {
		return ""
	}
	none := func(a Allowed) bool { return !a.Any && len(a.Names) == 0 }
	switch f := r.Filter; {
	case none(g.Projects) && none(g.Teams):
		return fmt.Sprintf("Namespace %q grants no events: ask its administrator for the annotation %s or %s on it",
			r.Namespace, v1alpha1.AnnotationAllowedProjects, v1alpha1.AnnotationAllowedTeams)
	case none(g.Projects), f.Project != "" && !g.Projects.Allows(f.Project):
		return notGranted(r.Namespace, "project", f.Project, v1alpha1.AnnotationAllowedProjects)
	case none(g.Teams), f.Team != "" && !g.Teams.Allows(f.Team):
		return notGranted(r.Namespace, "team", f.Team, v1alpha1.AnnotationAllowedTeams)
	default:
		return ""
	}
}

func notGranted(namespace, attribute, value, annotation string) string {
	if value == "" {
		return fmt.Sprintf("the annotation %s of Namespace %q is empty, so it grants the events of no %s", annotation,
			namespace, attribute)
	}
	return fmt.Sprintf("spec.filter asks for %s %q, which the annotation %s of Namespace %q does not grant", attribute,
		value, annotation, namespace)
}

// maxExpanded bounds the pairs of project and team under which a route is found. Where there are more, it is found
// under any, and what its Namespace grants is looked at then.
const maxExpanded = 256

var anything = []string{""}

// wanted lists the projects and teams that a route is found under: "" for any, none at all where nothing passes.
func (r *Route) wanted() (projects, teams []string) {
	projects, teams = anything, anything
	if r.Filter.Project != "" {
		projects = []string{r.Filter.Project}
	}
	if r.Filter.Team != "" {
		teams = []string{r.Filter.Team}
	}
	if r.Grant == nil {
		return projects, teams
	}
	if r.ungranted() != "" {
		return nil, nil
	}
	if p := r.Grant.Projects; r.Filter.Project == "" && !p.Any && len(p.Names) <= maxExpanded {
		projects = p.Names
	}
	if t := r.Grant.Teams; r.Filter.Team == "" && !t.Any && len(projects)*len(t.Names) <= maxExpanded {
		teams = t.Names
	}
	return projects, teams
}
