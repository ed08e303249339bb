// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"iter"

	"github.com/tidwall/btree"
)

// references says which subscriptions refer to a source: a Secret or ConfigMap of a name, and either where both have
// it. It holds pairs in a tree: nearly every source has one subscription, and a map of maps would weigh several times
// as much.
type references struct {
	bySource *btree.BTreeG[reference]
	sources  map[key][]string // what each subscription refers to
}

// reference is one mention of a source by a subscription of the same namespace.
type reference struct{ namespace, source, subscription string }

func newReferences() *references {
	less := func(a, b reference) bool {
		if a.namespace != b.namespace {
			return a.namespace < b.namespace
		}
		if a.source != b.source {
			return a.source < b.source
		}
		return a.subscription < b.subscription
	}
	return &references{
		bySource: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}),
		sources:  map[key][]string{},
	}
}

// set makes these the sources that a subscription refers to; none forgets the subscription.
func (r *references) set(subscription key, sources []string) {
	for _, name := range r.sources[subscription] {
		r.bySource.Delete(reference{subscription.namespace, name, subscription.name})
	}
	for _, name := range sources {
		r.bySource.Set(reference{subscription.namespace, name, subscription.name})
	}
	if len(sources) == 0 {
		delete(r.sources, subscription)
		return
	}
	r.sources[subscription] = sources
}

// to lists the subscriptions that refer to a source.
func (r *references) to(source key) iter.Seq[key] {
	return func(yield func(key) bool) {
		from := reference{source.namespace, source.name, ""}
		r.bySource.Ascend(from, func(found reference) bool {
			return found.namespace == source.namespace && found.source == source.name &&
				yield(key{found.namespace, found.subscription})
		})
	}
}
