// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"nexus.io/webhooks/internal/routing"
)

func TestWhatWasDeletedUnseenIsCancelled(t *testing.T) {
	b := newBench(t, nil)
	kept := b.subscribe("kept")
	b.queue.put("sub_gone")
	b.queue.put(idOf(kept))
	b.ready()
	eventually(t, "cancelled", func() bool { return b.queue.isCancelled("sub_gone") })
	if _, listed := b.queue.counts(); listed < 2 {
		t.Errorf("cancelled after %d comparisons", listed)
	}
	if b.queue.isCancelled(idOf(kept)) {
		t.Error("what exists is cancelled")
	}
}

func TestQueueIsToldAgainWhatItForgot(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("forgotten")
	b.ready()
	eventually(t, "the first comparison", func() bool { _, listed := b.queue.counts(); return listed > 0 })
	b.queue.mu.Lock()
	delete(b.queue.limits, idOf(sub))
	b.queue.mu.Unlock()
	b.w.compareSoon()
	eventually(t, "the queue knows it again", func() bool { return b.queue.get(idOf(sub)).SubscriptionID != "" })
}

// TestAbsenceFromAListIsNotBelieved plays a server that lags behind: a list lacks what the API server itself has.
func TestAbsenceFromAListIsNotBelieved(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("present")
	b.ready()
	eventually(t, "the first comparison", func() bool { _, listed := b.queue.counts(); return listed > 0 })
	store := b.w.objects.places[metav1.NamespaceAll].subscriptions.GetStore()
	item, _, _ := store.GetByKey(keyOf(sub).String())
	b.must(store.Delete(item))
	_, before := b.queue.counts()
	subscriptionHandler{b.w}.OnDelete(cache.DeletedFinalStateUnknown{Key: keyOf(sub).String(), Obj: item})
	eventually(t, "a comparison for the doubt", func() bool { _, listed := b.queue.counts(); return listed > before })
	other := b.subscribe("other")
	b.eventuallyRoute(other, "is there", func(*routing.Route) bool { return true })
	if b.route(sub) == nil || b.queue.isCancelled(idOf(sub)) {
		t.Errorf("route %v, cancelled %v", b.route(sub), b.queue.isCancelled(idOf(sub)))
	}
}

// listing plays the Kubernetes API in comparisons: these pages, then an error, or else nothing there.
type listing struct {
	pages []*metav1.PartialObjectMetadataList
	err   error
}

func (l *listing) List(context.Context, metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	if len(l.pages) == 0 && l.err != nil {
		return nil, l.err
	}
	if len(l.pages) == 0 {
		return page(""), nil
	}
	page := l.pages[0]
	l.pages = l.pages[1:]
	return page, nil
}

func page(next string) *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{Continue: next}}
}

func TestComparisonCancelsOnlyWhatIsCertain(t *testing.T) {
	broken := errors.New("etcdserver: leader changed")
	cases := map[string]struct {
		known int
		live  *listing
		want  int // cancelled after two comparisons
	}{
		"a complete list twice":          {3, &listing{pages: []*metav1.PartialObjectMetadataList{page(""), page("")}}, 3},
		"a list that breaks off":         {3, &listing{pages: []*metav1.PartialObjectMetadataList{page(""), page("more")}, err: broken}, 0},
		"no list at all":                 {3, &listing{err: broken}, 0},
		"most of what the queue knows":   {101, &listing{pages: []*metav1.PartialObjectMetadataList{page(""), page("")}}, 0},
		"as much as may be gone at once": {100, &listing{pages: []*metav1.PartialObjectMetadataList{page(""), page("")}}, 100},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.w.live = func(string) lister { return c.live }
			for i := range c.known {
				b.queue.put(fmt.Sprintf("sub_%d", i))
			}
			comparison := newComparison(b.w)
			for range 2 {
				_ = comparison.compare(t.Context())
				if n := len(b.w.gone.ids); n > 0 && len(c.live.pages) > 0 {
					t.Errorf("%d cancelled after one comparison", n)
				}
			}
			if got := len(b.w.gone.take()); got != c.want {
				t.Errorf("cancelled %d, want %d", got, c.want)
			}
		})
	}
}

func TestRouteOfWhatIsGoneLeavesTheTableBeforeItIsCancelled(t *testing.T) {
	b := newBench(t, func(o *Options) { o.ConfirmAfter = time.Hour })
	b.w.live = func(string) lister { return &listing{} }
	sub := b.subscribe("vanished")
	b.ready()
	eventually(t, "the first comparison", func() bool { _, listed := b.queue.counts(); return listed > 0 })
	store := b.w.objects.places[metav1.NamespaceAll].subscriptions.GetStore()
	item, _, _ := store.GetByKey(keyOf(sub).String())
	b.must(store.Delete(item))
	subscriptionHandler{b.w}.OnDelete(cache.DeletedFinalStateUnknown{Key: keyOf(sub).String(), Obj: item})
	eventually(t, "the route is gone", func() bool { return b.route(sub) == nil })
	if b.queue.isCancelled(idOf(sub)) {
		t.Error("cancelled without confirmation")
	}
}
