// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"iter"

	"github.com/tidwall/btree"
)

// references says which subscriptions refer to a Secret. It holds pairs in a tree: nearly every Secret has one
// subscription, and a map of maps would weigh several times as much.
type references struct {
	bySecret *btree.BTreeG[reference]
	secrets  map[key][]string // what each subscription refers to
}

// reference is one mention of a Secret by a subscription of the same namespace.
type reference struct{ namespace, secret, subscription string }

func newReferences() *references {
	less := func(a, b reference) bool {
		if a.namespace != b.namespace {
			return a.namespace < b.namespace
		}
		if a.secret != b.secret {
			return a.secret < b.secret
		}
		return a.subscription < b.subscription
	}
	return &references{
		bySecret: btree.NewBTreeGOptions(less, btree.Options{NoLocks: true}),
		secrets:  map[key][]string{},
	}
}

// set makes these the Secrets that a subscription refers to; none forgets the subscription.
func (r *references) set(subscription key, secrets []string) {
	for _, name := range r.secrets[subscription] {
		r.bySecret.Delete(reference{subscription.namespace, name, subscription.name})
	}
	for _, name := range secrets {
		r.bySecret.Set(reference{subscription.namespace, name, subscription.name})
	}
	if len(secrets) == 0 {
		delete(r.secrets, subscription)
		return
	}
	r.secrets[subscription] = secrets
}

// to lists the subscriptions that refer to a Secret.
func (r *references) to(secret key) iter.Seq[key] {
	return func(yield func(key) bool) {
		from := reference{secret.namespace, secret.name, ""}
		r.bySecret.Ascend(from, func(found reference) bool {
			return found.namespace == secret.namespace && found.secret == secret.name &&
				yield(key{found.namespace, found.subscription})
		})
	}
}
