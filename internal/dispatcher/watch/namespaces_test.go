// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// annotate sets an annotation of the bench's namespace; null removes it.
func (b *bench) annotate(name, value string) {
	b.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, name, value)
	b.must(b.client.Patch(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.namespace}},
		client.RawPatch("application/merge-patch+json", patch)))
}

// followers are a watcher of all namespaces and one of the bench's.
var followers = map[string]func(b *bench) func(*Options){
	"all namespaces": func(*bench) func(*Options) { return func(*Options) {} },
	"one namespace":  func(b *bench) func(*Options) { return func(o *Options) { o.Namespaces = []string{b.namespace} } },
}

func TestGrantsOfTheNamespaceAreFollowed(t *testing.T) {
	for name, narrow := range followers {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(o *Options) { o.RequireGrants = true })
			b.narrow(narrow(b))
			sub := b.subscribe("granted")
			b.key(sub)
			b.annotate(v1alpha1.AnnotationAllowedProjects, `"NEXUS"`)
			b.ready()
			matches := func(project string) (n int) { // in this namespace: others have grants of their own
				for _, r := range b.w.Table().Match("build.completed", event.Attributes{Project: project}) {
					if r.Namespace == b.namespace {
						n++
					}
				}
				return n
			}
			if r := b.route(sub); r == nil || r.Hold != "" || matches("NEXUS") != 1 || matches("OTHER")+matches("") != 0 {
				t.Fatalf("at the start: route %v, %d %d %d matches", r, matches("NEXUS"), matches("OTHER"), matches(""))
			}
			b.annotate(v1alpha1.AnnotationAllowedProjects, `"OTHER"`)
			eventually(t, "the other project alone is granted", func() bool {
				return matches("NEXUS") == 0 && matches("OTHER") == 1
			})
			b.annotate(v1alpha1.AnnotationAllowedProjects, `null`)
			b.eventuallyRoute(sub, "is on hold", func(r *routing.Route) bool {
				return r.Hold == v1alpha1.ReasonNotGranted && strings.Contains(r.HoldDetail, b.namespace)
			})
			if matches("NEXUS")+matches("OTHER") != 0 {
				t.Error("an event matches without any grant")
			}
			if got := b.queue.get(idOf(sub)); !got.Paused {
				t.Errorf("limits of what is granted nothing are %+v, want it paused", got)
			}
			b.annotate(v1alpha1.AnnotationAllowedTeams, `"*"`)
			b.eventuallyRoute(sub, "is free", func(r *routing.Route) bool { return r.Hold == "" })
			late := b.subscribe("late")
			b.eventuallyRoute(late, "has the grant", func(r *routing.Route) bool { return r.Grant != nil && r.Grant.Teams.Any })
		})
	}
}

func TestOtherAnnotationsOfANamespaceChangeNothing(t *testing.T) {
	b := newBench(t, func(o *Options) { o.RequireGrants = true })
	sub := b.subscribe("steady")
	b.annotate(v1alpha1.AnnotationAllowedProjects, `"*"`)
	b.ready()
	before := b.route(sub)
	b.annotate("example.org/owner", `"somebody"`)
	b.annotate(v1alpha1.AnnotationAllowedTeams, `"T"`)
	b.eventuallyRoute(sub, "has the later grant", func(r *routing.Route) bool { return r != before })
	if r := b.route(sub); len(r.Grant.Teams.Names) != 1 {
		t.Errorf("the grant is %+v", r.Grant)
	}
}

func TestOnlyNamedNamespacesAreFollowed(t *testing.T) {
	outside := newBench(t, nil).subscribe("outside")
	b := newBench(t, nil)
	other := cluster.Namespace(t.Context(), t, "other")
	b.narrow(func(o *Options) {
		o.Namespaces = []string{b.namespace, other}
		o.CompareEvery, o.ConfirmAfter = 20*time.Millisecond, 20*time.Millisecond
	})
	sub := b.subscribe("inside")
	b.key(sub)
	b.ready()
	if r := b.route(sub); r == nil || r.Hold != "" {
		t.Errorf("route of a named namespace: %v", r)
	}
	if r := b.route(outside); r != nil || b.w.Table().Len() != 1 {
		t.Errorf("route of another namespace: %v, of %d", r, b.w.Table().Len())
	}
	second := b.subscribeIn(other, "second")
	b.eventuallyRoute(second, "is there", func(*routing.Route) bool { return true })
	_, listed := b.queue.counts()
	eventually(t, "some comparisons", func() bool { _, now := b.queue.counts(); return now > listed+3 })
	if b.queue.isCancelled(idOf(sub)) || b.queue.isCancelled(idOf(second)) {
		t.Error("what is followed was cancelled")
	}
	b.must(b.client.Delete(t.Context(), second))
	eventually(t, "what was deleted is cancelled", func() bool { return b.queue.isCancelled(idOf(second)) })
}

// narrow makes the bench's watcher anew with other options. It must not run yet.
func (b *bench) narrow(change func(*Options)) {
	b.Helper()
	options := b.w.options
	change(&options)
	w, err := New(options)
	b.must(err)
	b.w = w
}

func (b *bench) subscribeIn(namespace, name string) *v1alpha1.WebhookSubscription {
	b.Helper()
	was := b.namespace
	defer func() { b.namespace = was }()
	b.namespace = namespace
	return b.subscribe(name)
}

func TestWhereNamespacesAreNamedARolloutHasTime(t *testing.T) {
	named, all := Options{Namespaces: []string{"team-a"}}, Options{}
	named.setDefaults()
	all.setDefaults()
	if named.ConfirmAfter < 10*time.Minute || named.CompareEvery < named.ConfirmAfter || all.ConfirmAfter > time.Minute {
		t.Errorf("named %v %v, all %v", named.CompareEvery, named.ConfirmAfter, all.ConfirmAfter)
	}
}
