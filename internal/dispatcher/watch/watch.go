// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package watch keeps the routing table in step with the subscriptions and Secrets of the cluster.
//
// It promises that only what changed is compiled, that the queue knows the limits of a route before the table holds it,
// that no change is lost while Redis is away, that the last table stays while the Kubernetes API is away, and that the
// deliveries of a subscription are cancelled only once it is certain that the subscription is gone.
// It knows nothing of events, deliveries and HTTP.
package watch

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// Queue is what the watcher tells the queue, and asks it.
type Queue interface {
	// Configure tells the limits of subscriptions; it may be repeated.
	Configure(ctx context.Context, limits []queue.Limits) error
	// Cancel ends, for good, what waits for subscriptions that are gone; it may be repeated.
	Cancel(ctx context.Context, ids []string) error
	// Known lists the subscriptions that were configured and not cancelled.
	Known(ctx context.Context) ([]string, error)
}

// Options of a Watcher. Config, Queue and Defaults are required.
type Options struct {
	// Config connects to the Kubernetes API, as somebody who may list and watch subscriptions and Secrets.
	Config *rest.Config
	Queue  Queue
	// Defaults are for what a subscription's spec leaves out.
	Defaults routing.Defaults
	// Namespaces are those to follow, as somebody who may do so in each of them; none follows all.
	Namespaces []string
	// RequireGrants gives a subscription only the events that the annotations of its Namespace grant. It takes the right
	// to get and watch Namespaces (in each of Namespaces, or else to list them too).
	RequireGrants bool
	// MaxBacklog bounds the deliveries that wait for one subscription.
	MaxBacklog int
	// Log defaults to slog.Default().
	Log *slog.Logger
	// CompareEvery is how often the queue's subscriptions are compared with the table. Default: 5 minutes, 15 where
	// Namespaces are named.
	CompareEvery time.Duration
	// ConfirmAfter is how long a subscription must be missing before its deliveries are cancelled, where nobody saw it
	// being deleted. Default: 30 seconds, or 15 minutes where Namespaces are named: while a change of them is rolled out,
	// the queue knows subscriptions that some replicas do not follow.
	ConfirmAfter time.Duration
	// QueueUsable is closed once the Queue may be called; the caches fill before. Default: at once.
	QueueUsable <-chan struct{}
	// RetryAtMost bounds the time between two tries to reach the queue. Default: 5 seconds.
	RetryAtMost time.Duration
}

const (
	defaultCompareEvery = 5 * time.Minute
	defaultConfirmAfter = 30 * time.Second
	defaultRolloutTime  = 15 * time.Minute
	defaultRetryAtMost  = 5 * time.Second
	retryAtFirst        = 100 * time.Millisecond
)

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if len(o.Namespaces) > 0 {
		o.CompareEvery = cmp.Or(o.CompareEvery, defaultRolloutTime)
		o.ConfirmAfter = cmp.Or(o.ConfirmAfter, defaultRolloutTime)
	}
	if o.CompareEvery == 0 {
		o.CompareEvery = defaultCompareEvery
	}
	if o.ConfirmAfter == 0 {
		o.ConfirmAfter = defaultConfirmAfter
	}
	if o.QueueUsable == nil {
		usable := make(chan struct{})
		close(usable)
		o.QueueUsable = usable
	}
	if o.RetryAtMost == 0 {
		o.RetryAtMost = defaultRetryAtMost
	}
}

// Watcher follows the cluster. Its methods may be called from any goroutine, before and after Run too.
type Watcher struct {
	options Options
	log     *slog.Logger
	objects *objects
	trouble *trouble
	live    func(namespace string) lister // reads past the caches

	table      atomic.Pointer[routing.Table]
	loaded     atomic.Bool
	lastChange atomic.Int64 // Unix milliseconds, 0 for never
	changes    *pending
	worker     *worker
	gone       *canceller
	doubt      chan struct{} // a subscription vanished and nobody saw it being deleted: compare soon

	listening  sync.Mutex
	listeners  map[int]func(ids []string)
	listenerID int
}

// lister lists the metadata of subscriptions.
type lister interface {
	List(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error)
}

// New makes a Watcher that follows nothing until Run.
func New(options Options) (*Watcher, error) {
	options.setDefaults()
	client, err := metadata.NewForConfig(metadata.ConfigFor(options.Config))
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	w := &Watcher{
		options: options,
		log:     options.Log,
		live: func(namespace string) lister {
			return client.Resource(v1alpha1.SubscriptionResource).Namespace(namespace)
		},
		changes: newPending(),
		doubt:   make(chan struct{}, 1),
	}
	w.table.Store(routing.Empty())
	w.trouble = newTrouble(w.log, w.Ready)
	if w.objects, err = newObjects(options.Config, w); err != nil {
		return nil, err
	}
	w.worker = newWorker(w)
	w.gone = newCanceller(w)
	return w, nil
}

// namespaces lists what is followed, one by one: all namespaces are metav1.NamespaceAll.
func (w *Watcher) namespaces() []string {
	if len(w.options.Namespaces) == 0 {
		return []string{metav1.NamespaceAll}
	}
	return w.options.Namespaces
}

// Run follows the cluster until ctx ends, which is its only end: every trouble is retried.
func (w *Watcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { w.objects.run(ctx); return nil })
	group.Go(func() error { w.gone.run(ctx); return nil })
	group.Go(func() error {
		if !w.objects.waitForSync(ctx) || !w.waitForQueue(ctx) {
			return nil
		}
		w.worker.load(ctx)
		group.Go(func() error { newComparison(w).run(ctx); return nil })
		w.worker.run(ctx)
		return nil
	})
	return group.Wait()
}

func (w *Watcher) waitForQueue(ctx context.Context) bool {
	select {
	case <-w.options.QueueUsable:
		return true
	case <-ctx.Done():
		return false
	}
}

// Trouble is what keeps the caches from following the Kubernetes API just now, nil if nothing does. It holds no secret.
func (w *Watcher) Trouble() error {
	return w.trouble.err()
}

// Ready tells whether the table is complete: it holds every subscription that there was at the start.
func (w *Watcher) Ready() bool {
	return w.loaded.Load()
}

// Table is the current routing table. It is empty and grows until Ready.
func (w *Watcher) Table() *routing.Table {
	return w.table.Load()
}

// Subscription finds a route and the object behind it, as the cache has it: possibly newer than the route. The object
// is shared and must not be changed. Both are nil if there is none, the object alone if it is already gone.
func (w *Watcher) Subscription(id string) (*v1alpha1.WebhookSubscription, *routing.Route) {
	route := w.Table().Route(id)
	if route == nil {
		return nil, nil
	}
	return w.object(route), route
}

// object finds what a route was made of in the cache, nil if it is gone or another one bears its name.
func (w *Watcher) object(route *routing.Route) *v1alpha1.WebhookSubscription {
	sub := w.objects.subscription(key{route.Namespace, route.Name})
	if sub == nil || string(sub.UID) != route.UID {
		return nil
	}
	return sub
}

// Subscribe calls f with the IDs of the routes of every later table that differ from the table before, until the
// returned function is called. f must return at once.
func (w *Watcher) Subscribe(f func(ids []string)) (stop func()) {
	w.listening.Lock()
	defer w.listening.Unlock()
	if w.listeners == nil {
		w.listeners = map[int]func([]string){}
	}
	id := w.listenerID
	w.listenerID++
	w.listeners[id] = f
	return func() {
		w.listening.Lock()
		defer w.listening.Unlock()
		delete(w.listeners, id)
	}
}

// publish makes a table the current one and tells the listeners. Only the worker calls it.
func (w *Watcher) publish(upserts []*routing.Route, removed []string) {
	if len(upserts)+len(removed) == 0 {
		return
	}
	w.table.Store(w.Table().With(upserts, removed))
	w.lastChange.Store(time.Now().UnixMilli())
	ids := removed[:len(removed):len(removed)]
	for _, r := range upserts {
		ids = append(ids, r.ID)
	}
	w.listening.Lock()
	defer w.listening.Unlock()
	for _, f := range w.listeners {
		f(ids)
	}
}

// compareSoon asks for a comparison without waiting for its time.
func (w *Watcher) compareSoon() {
	select {
	case w.doubt <- struct{}{}:
	default:
	}
}

// key names an object.
type key struct{ namespace, name string }

func keyOf(o metav1.Object) key {
	return key{o.GetNamespace(), o.GetName()}
}

func (k key) String() string {
	return k.namespace + "/" + k.name
}
