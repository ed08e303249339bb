// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/kube"
)

const (
	patience       = 30 * time.Second
	signingKeyText = "0123456789abcdef0123456789abcdef"
)

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// eventually polls until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("still not so after %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// memoryQueue is a Queue in memory that can be out of reach.
type memoryQueue struct {
	mu         sync.Mutex
	down       bool
	limits     map[string]queue.Limits
	configured int
	cancelled  map[string]bool
	listed     int
	onChange   func(ids []string) // called within Configure and Cancel
}

var errDown = errors.New("connection refused")

func newMemoryQueue() *memoryQueue {
	return &memoryQueue{limits: map[string]queue.Limits{}, cancelled: map[string]bool{}, onChange: func([]string) {}}
}

func (q *memoryQueue) Configure(_ context.Context, limits []queue.Limits) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return errDown
	}
	for _, l := range limits {
		q.onChange([]string{l.SubscriptionID})
		q.limits[l.SubscriptionID] = l
		q.configured++
	}
	return nil
}

func (q *memoryQueue) Cancel(_ context.Context, ids []string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.down {
		return errDown
	}
	q.onChange(ids)
	for _, id := range ids {
		q.cancelled[id] = true
		delete(q.limits, id)
	}
	return nil
}

func (q *memoryQueue) Known(context.Context) ([]string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listed++
	if q.down {
		return nil, errDown
	}
	return slices.Collect(maps.Keys(q.limits)), nil
}

func (q *memoryQueue) setDown(down bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = down
}

func (q *memoryQueue) get(id string) queue.Limits {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits[id]
}

func (q *memoryQueue) put(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits[id] = queue.Limits{SubscriptionID: id}
}

func (q *memoryQueue) isCancelled(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cancelled[id]
}

func (q *memoryQueue) counts() (configured, listed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.configured, q.listed
}

// proxy stands between a watcher and the API server, and can go away and come back.
type proxy struct {
	address, target string

	mu    sync.Mutex
	conns map[net.Conn]bool
	stop  func()
}

func newProxy(t *testing.T) (*proxy, *rest.Config) {
	t.Helper()
	target, err := url.Parse(cluster.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	host := target.Host
	if host == "" {
		host = cluster.Config.Host
	}
	p := &proxy{address: "127.0.0.1:0", target: host, conns: map[net.Conn]bool{}}
	p.up(t)
	t.Cleanup(p.down)
	config := rest.CopyConfig(cluster.Config)
	config.Host = "https://" + p.address
	return p, config
}

func (p *proxy) up(t *testing.T) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.Addr().String()
	p.stop = func() { _ = listener.Close() }
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.join(in, out)
			p.join(out, in)
		}
	}()
}

func (p *proxy) join(from, to net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[from] = true
	go func() {
		_, _ = io.Copy(to, from)
		_, _ = from.Close(), to.Close()
	}()
}

// down closes the listener and every connection, as a server that dies.
func (p *proxy) down() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// bench is one test's namespace, client, queue and watcher.
type bench struct {
	*testing.T
	client    client.Client
	namespace string
	queue     *memoryQueue
	w         *Watcher
}

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cluster.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, client: c, queue: newMemoryQueue(), namespace: cluster.Namespace(t.Context(), t, "watch")}
	options := Options{
		Config: cluster.Config, Queue: b.queue, MaxBacklog: 1000,
		Defaults:     routing.Defaults{RatePerMinute: 60, MaxInFlight: 10, Timeout: time.Second},
		CompareEvery: time.Hour, ConfirmAfter: 50 * time.Millisecond, RetryAtMost: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&options)
	}
	if b.w, err = New(options); err != nil {
		t.Fatal(err)
	}
	return b
}

// start runs the watcher until the test ends.
func (b *bench) start() {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.w.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run ended with %v", err)
		}
	})
}

func (b *bench) ready() {
	b.Helper()
	b.start()
	eventually(b.T, "the watcher is ready", b.w.Ready)
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) subscribe(name string) *v1alpha1.WebhookSubscription {
	b.Helper()
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: name},
		Spec:       v1alpha1.WebhookSubscriptionSpec{URL: "https://app.example/hook", Events: []string{"build.completed"}},
	}
	b.must(b.client.Create(b.Context(), sub))
	return sub
}

// key makes the signing Secret of a subscription, as the manager does.
func (b *bench) key(sub *v1alpha1.WebhookSubscription) *corev1.Secret {
	b.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       b.namespace,
			Name:            v1alpha1.GeneratedSecretName(sub.Name),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(sub, v1alpha1.SubscriptionKind)},
		},
		Type:       v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{v1alpha1.DefaultSigningKey: signingKeyText},
	}
	b.must(b.client.Create(b.Context(), secret))
	return secret
}

func (b *bench) route(sub *v1alpha1.WebhookSubscription) *routing.Route {
	return b.w.Table().Route(idOf(sub))
}

func (b *bench) eventuallyRoute(sub *v1alpha1.WebhookSubscription, what string, ok func(*routing.Route) bool) {
	b.Helper()
	eventually(b.T, fmt.Sprintf("route of %s: %s", sub.Name, what), func() bool {
		r := b.route(sub)
		return r != nil && ok(r)
	})
}

func idOf(sub *v1alpha1.WebhookSubscription) string {
	return event.SubscriptionID(string(sub.UID))
}

func holds(reason string) func(*routing.Route) bool {
	return func(r *routing.Route) bool { return r.Hold == reason && (r.Hold == "") == (len(r.Keys) > 0) }
}

func hasKey(text string) func(*routing.Route) bool {
	return func(r *routing.Route) bool { return len(r.Keys) == 1 && strings.HasPrefix(string(r.Keys[0]), text) }
}
