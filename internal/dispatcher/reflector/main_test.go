// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/kube"
)

const patience = 30 * time.Second

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// within polls until ok, and fails the test if that takes longer than d.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(d), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("still not so after %v: %s", d, what)
		case <-tick.C:
		}
	}
}

// memoryQueue is a Queue in memory.
type memoryQueue struct {
	mu      sync.Mutex
	version int64
	all     map[string]queue.Statistics
	dirty   []string
	urgent  map[string]bool
	calls   int
	down    bool
}

var errDown = errors.New("connection refused")

func newMemoryQueue() *memoryQueue {
	return &memoryQueue{all: map[string]queue.Statistics{}, urgent: map[string]bool{}}
}

// set changes the statistics of a subscription.
func (q *memoryQueue) set(urgent bool, s queue.Statistics) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.version++
	s.Version = q.version
	q.all[s.SubscriptionID] = s
	q.dirty = append(slices.DeleteFunc(q.dirty, func(id string) bool { return id == s.SubscriptionID }), s.SubscriptionID)
	q.urgent[s.SubscriptionID] = q.urgent[s.SubscriptionID] || urgent
}

func (q *memoryQueue) enter() error {
	q.calls++
	if q.down {
		return errDown
	}
	return nil
}

func (q *memoryQueue) Changed(_ context.Context, limit int, urgentOnly bool) ([]queue.Statistics, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.enter(); err != nil {
		return nil, err
	}
	var out []queue.Statistics
	for _, id := range q.dirty {
		if len(out) < limit && (!urgentOnly || q.urgent[id]) {
			out = append(out, q.all[id])
		}
	}
	return out, nil
}

func (q *memoryQueue) Statistics(_ context.Context, ids []string) ([]queue.Statistics, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.enter(); err != nil {
		return nil, err
	}
	var out []queue.Statistics
	for _, id := range ids {
		if s, ok := q.all[id]; ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func (q *memoryQueue) Reflected(_ context.Context, statistics []queue.Statistics) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.enter(); err != nil {
		return err
	}
	for _, s := range statistics {
		if q.all[s.SubscriptionID].Version <= s.Version {
			q.dirty = slices.DeleteFunc(q.dirty, func(id string) bool { return id == s.SubscriptionID })
			delete(q.urgent, s.SubscriptionID)
		}
	}
	return nil
}

// waiting is how many statistics are not reflected.
func (q *memoryQueue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.dirty)
}

func (q *memoryQueue) called() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.calls
}

func (q *memoryQueue) setDown(down bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = down
}

// memorySource is a Source whose cache the test holds: it is as old as the test wants.
type memorySource struct {
	mu      sync.Mutex
	table   *routing.Table
	objects map[string]*v1alpha1.WebhookSubscription
	listen  func([]string)
	read    func(id string) *v1alpha1.WebhookSubscription // nil: objects
	loading bool
}

func newMemorySource() *memorySource {
	return &memorySource{table: routing.Empty(), objects: map[string]*v1alpha1.WebhookSubscription{}}
}

// route makes this the object of a route, and tells listeners.
func (s *memorySource) route(sub *v1alpha1.WebhookSubscription) string {
	secret := func(string, string) *corev1.Secret { return signingSecret(sub) }
	r := routing.Compile(sub, routing.Sources{Secret: secret}, routing.Defaults{})
	s.mu.Lock()
	s.objects[r.ID] = sub.DeepCopy()
	s.table = s.table.With([]*routing.Route{r}, nil)
	listen := s.listen
	s.mu.Unlock()
	if listen != nil {
		listen([]string{r.ID})
	}
	return r.ID
}

func (s *memorySource) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.loading
}

func (s *memorySource) setLoading(loading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = loading
}

func (s *memorySource) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = s.table.With(nil, []string{id})
	delete(s.objects, id)
}

func (s *memorySource) Table() *routing.Table {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table
}

func (s *memorySource) Subscription(id string) (*v1alpha1.WebhookSubscription, *routing.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.Route(id) == nil {
		return nil, nil
	}
	if s.read != nil {
		return s.read(id), s.table.Route(id)
	}
	return s.objects[id], s.table.Route(id)
}

func (s *memorySource) Subscribe(f func(ids []string)) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listen = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.listen = nil
	}
}

// counter counts writes of statuses on their way, and can refuse some.
type counter struct {
	next    http.RoundTripper
	writes  *atomic.Int64
	refusal *atomic.Int64 // how many are refused
	log     *writeLog

	away       *atomic.Bool // everything fails
	turnedAway *atomic.Int64
}

// writeLog says when which status was written.
type writeLog struct {
	mu    sync.Mutex
	at    []time.Time
	names []string
}

func (l *writeLog) add(r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = append(l.at, time.Now())
	l.names = append(l.names, path.Base(path.Dir(r.URL.Path)))
}

// most is the largest number of writes in any period of length d.
func (l *writeLog) most(d time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most, from := 0, 0
	for i, at := range l.at {
		for at.Sub(l.at[from]) > d {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

// first counts, of the first n writes, those whose name starts with prefix.
func (l *writeLog) first(n int, prefix string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := 0
	for _, name := range l.names[:n] {
		if strings.HasPrefix(name, prefix) {
			count++
		}
	}
	return count
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.away.Load() {
		c.turnedAway.Add(1)
		return nil, errDown
	}
	if r.Method != http.MethodPatch || !strings.HasSuffix(r.URL.Path, "/status") {
		return c.next.RoundTrip(r)
	}
	if c.refusal.Add(-1) >= 0 {
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: io.NopCloser(strings.NewReader("")),
			Header: http.Header{}, Request: r}, nil
	}
	c.writes.Add(1)
	c.log.add(r)
	return c.next.RoundTrip(r)
}

// bench is one test's namespace, queue, source and reflector.
type bench struct {
	*testing.T
	client    client.Client
	namespace string
	queue     *memoryQueue
	source    *memorySource
	writes    atomic.Int64
	refusal   atomic.Int64
	log       writeLog

	away       atomic.Bool
	turnedAway atomic.Int64

	options Options
}

func newBench(t *testing.T) *bench {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cluster.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, client: c, namespace: cluster.Namespace(t.Context(), t, "reflector"), queue: newMemoryQueue(),
		source: newMemorySource()}
	config := rest.CopyConfig(cluster.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return counter{next, &b.writes, &b.refusal, &b.log, &b.away, &b.turnedAway}
	})
	b.options = Options{
		Config: config, Queue: b.queue, Subscriptions: b.source, Namespace: b.namespace, Identity: "one",
		WritesPerSecond: 1000, Burst: 1000, UrgentEvery: 20 * time.Millisecond, CountersEvery: 60 * time.Millisecond,
		CountersPause: time.Millisecond,
		LeaseDuration: 3 * time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return b
}

// start runs a reflector until stop is called or the test ends.
func (b *bench) start(change func(*Options)) (stop func()) {
	b.Helper()
	options := b.options
	if change != nil {
		change(&options)
	}
	r, err := New(options)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run ended with %v", err)
		}
	})
	b.Cleanup(stop)
	return stop
}

// subscribe makes an object and its route, and returns its ID.
func (b *bench) subscribe(name string) (string, *v1alpha1.WebhookSubscription) {
	b.Helper()
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name},
		Spec:       v1alpha1.WebhookSubscriptionSpec{URL: "https://app.example/hook", Events: []string{"build.completed"}},
	}
	if err := b.client.Create(b.Context(), sub); err != nil {
		b.Fatal(err)
	}
	return b.source.route(sub), sub
}

// manage writes the manager's part of a status, as the manager does.
func (b *bench) manage(name string, ready metav1.ConditionStatus) {
	b.Helper()
	object := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{
		"host": "app.example",
		"conditions": []any{map[string]any{"type": v1alpha1.ConditionReady, "status": string(ready), "message": "",
			"reason": v1alpha1.ReasonReady, "lastTransitionTime": "2026-05-04T03:02:01Z"}},
	}}}
	object.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	object.SetNamespace(b.namespace)
	object.SetName(name)
	err := b.client.Status().Apply(b.Context(), client.ApplyConfigurationFromUnstructured(object),
		client.FieldOwner(v1alpha1.FieldOwnerManager), client.ForceOwnership)
	if err != nil {
		b.Fatal(err)
	}
}

// lockedBuilder is a log to be read while it is written.
type lockedBuilder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// follow has the source read the API server, as a cache without any delay.
func (b *bench) follow() {
	names := map[string]string{}
	for r := range b.source.Table().All() {
		names[r.ID] = r.Name
	}
	b.source.mu.Lock()
	defer b.source.mu.Unlock()
	b.source.read = func(id string) *v1alpha1.WebhookSubscription { return b.get(names[id]) }
}

func (b *bench) get(name string) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{}
	key := client.ObjectKey{Namespace: b.namespace, Name: name}
	if err := b.client.Get(context.Background(), key, sub); err != nil {
		return nil
	}
	return sub
}

// delivering is the condition that the API server has, empty for none.
func (b *bench) delivering(name string) metav1.Condition {
	sub := b.get(name)
	if sub == nil {
		return metav1.Condition{}
	}
	if c := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func (b *bench) eventually(name, reason string) {
	b.Helper()
	within(b.T, patience, name+" is "+reason, func() bool { return b.delivering(name).Reason == reason })
}

func success(id string, n int64) queue.Statistics {
	at := time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)
	return queue.Statistics{SubscriptionID: id, Successful: n, LastAttempt: at, LastSuccess: at, LastStatusCode: 200,
		LatencySum: time.Duration(n) * 245 * time.Millisecond, LatencyCount: n}
}

func signingSecret(sub *v1alpha1.WebhookSubscription) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(sub, v1alpha1.SubscriptionKind)},
		},
		Type: v1alpha1.SecretTypeSigningKey,
		Data: map[string][]byte{v1alpha1.DefaultSigningKey: []byte("0123456789abcdef0123456789abcdef")},
	}
}

func idOf(sub *v1alpha1.WebhookSubscription) string { return event.SubscriptionID(string(sub.UID)) }
