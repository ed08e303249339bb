// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"runtime"
	"sync"
	"weak"

	"nexus.io/webhooks/internal/routing"
)

// identities finds again what routes share of their TLS, so that thousands of subscriptions that name the same bundle
// of authorities hold and parse it once. It keeps nothing alive: what no route uses any more leaves with the garbage.
type identities struct {
	mu    sync.Mutex
	known map[string]weak.Pointer[routing.TLS]
}

func newIdentities() *identities {
	return &identities{known: map[string]weak.Pointer[routing.TLS]{}}
}

// find is the TLS of that ID, nil if there is none.
func (i *identities) find(id string) *routing.TLS {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.known[id].Value()
}

// add makes one be found, unless there is one of its ID already. Nil is passed over.
func (i *identities) add(t *routing.TLS) {
	if t == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known[t.ID].Value() != nil {
		return
	}
	i.known[t.ID] = weak.Make(t)
	runtime.AddCleanup(t, i.forget, t.ID)
}

// forget drops an entry unless another one took its place.
func (i *identities) forget(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known[id].Value() == nil {
		delete(i.known, id)
	}
}

func (i *identities) len() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.known)
}
