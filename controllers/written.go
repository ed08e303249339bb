// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// written remembers which version of each object our last write made, until an object that is at least as new is seen.
// An older one from the cache is no measure of what needs a write: a status that goes back to what it was before the
// last write would seem to be there already, and nothing would wake us to put it right. It holds two short strings per
// subscription at most. The zero value is ready for use.
type written struct {
	mutex    sync.Mutex
	versions map[types.NamespacedName]string
}

// remember takes note of a write that made this version; "" if it is not known which, or whether there was a write.
func (w *written) remember(key types.NamespacedName, version string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.versions == nil {
		w.versions = map[types.NamespacedName]string{}
	}
	w.versions[key] = version
}

// forget is for objects that are gone.
func (w *written) forget(key types.NamespacedName) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.versions, key)
}

// missing tells whether an object may be older than our last write to it. If not, that write is forgotten.
func (w *written) missing(object client.Object) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	key := client.ObjectKeyFromObject(object)
	version, wrote := w.versions[key]
	if !wrote {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(object.GetResourceVersion(), version)
	if err != nil || order < 0 {
		return true // not comparable: not known to have it
	}
	delete(w.versions, key)
	return false
}
