// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

const (
	// A watch that the Kubernetes API refuses is tried again after watchAgain at first, watchAgainAtMost at last, each
	// with up to as much again by chance.
	watchAgain       = 500 * time.Millisecond
	watchAgainAtMost = 10 * time.Second
)

// trouble is what keeps the caches from following the Kubernetes API. It tells of it in the log, at once and then now
// and then, and to whoever asks.
type trouble struct {
	log    *slog.Logger
	loaded func() bool
	again  time.Duration // how long to wait at first where the API server refuses

	mu        sync.Mutex
	found     map[string]error // by what is watched
	complains *rate.Sometimes
}

func newTrouble(log *slog.Logger, loaded func() bool) *trouble {
	return &trouble{
		log: log, loaded: loaded, again: watchAgain, found: map[string]error{},
		complains: &rate.Sometimes{Interval: complainEvery},
	}
}

// begins notes that what is watched cannot be read for now.
func (t *trouble) begins(watched string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found[watched] = err
	t.complains.Do(func() {
		log := t.log.With(slog.String("watched", watched), slog.Any("error", err))
		if t.loaded() {
			log.Warn("Watching the Kubernetes API was interrupted, going on with what is cached")
		} else {
			log.Warn("The Kubernetes API cannot be read, trying again until it answers")
		}
	})
}

func (t *trouble) ends(watched string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.found, watched)
}

// err is one of the present troubles, nil if there is none. It names no URL: those are long here, and the log has them.
func (t *trouble) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, err := range t.found {
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err
		}
		return fmt.Errorf("the Kubernetes API cannot be read: %w", err)
	}
	return nil
}

// patient makes a watch wait by itself where the API server refuses: client-go would do so in silence, and for up to a
// minute after the end of ctx. Every other error is for client-go to act on.
func (t *trouble) patient(watched string, source *cache.ListWatch) *cache.ListWatch {
	watch := source.WatchFuncWithContext
	source.WatchFuncWithContext = func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
		for again := t.again; ; again = min(2*again, watchAgainAtMost) {
			stream, err := watch(ctx, options)
			if ctx.Err() != nil {
				if stream != nil {
					stream.Stop()
				}
				// Watching nothing ends with ctx. After an error client-go would list, and not wait for the list's end.
				return apiwatch.NewFake(), nil
			}
			if err == nil {
				t.ends(watched)
				return stream, nil
			}
			t.begins(watched, err)
			if !utilnet.IsConnectionRefused(err) && !apierrors.IsTooManyRequests(err) {
				return nil, err
			}
			pause(ctx, wait.Jitter(again, 1))
		}
	}
	return source
}
