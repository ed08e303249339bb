// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/settings"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

const (
	patience   = 30 * time.Second
	shownLog   = 4000 // bytes
	signingKey = "signing-key-that-nobody-may-print"
)

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// rig is what a dispatcher under test works with, and what it writes.
type rig struct {
	*testing.T
	client    client.Client
	namespace string
	gate      *gate // between the dispatcher and the Kubernetes API
	redis     *redistest.Server
	receiver  *receiver.Receiver
	log       *log
}

func newRig(t *testing.T, redisFlags ...string) *rig {
	t.Helper()
	r := &rig{T: t, gate: newGate(), redis: redistest.ForTest(t, append([]string{"--appendonly", "yes"}, redisFlags...)...),
		namespace: cluster.Namespace(t.Context(), t, "app"), log: &log{}}
	var err error
	r.client, err = stack.NewClient(cluster.Config)
	r.must(err)
	r.receiver, err = receiver.Start()
	r.must(err)
	t.Cleanup(r.receiver.Close)
	t.Cleanup(func() {
		if t.Failed() {
			text := r.log.String()
			t.Logf("the log ends so:\n%s", text[max(0, len(text)-shownLog):])
		}
	})
	t.Cleanup(r.gate.shut)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// options are the defaults, but for what lets a dispatcher live beside others on one machine.
func (r *rig) options() dispatcher.Options {
	var o dispatcher.Options
	o.Bind(settings.New("dispatcher", ""))
	o.ListenAddress, o.MetricsAddress = "127.0.0.1:0", "127.0.0.1:0"
	o.RedisURL, o.EgressNetworks, o.Namespace = r.redis.URL(), "127.0.0.0/8", r.namespace
	o.Kube = r.gate.config()
	o.Logger = program.NewLogger(r.log, "debug", "json")
	return o
}

// app is a dispatcher that runs until stop, or the end of the test.
type app struct {
	*dispatcher.App
	r      *rig
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of Run, once ended is closed
}

func (r *rig) start(change func(*dispatcher.Options)) *app {
	r.Helper()
	o := r.options()
	if change != nil {
		change(&o)
	}
	built, err := dispatcher.New(o)
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	a := &app{App: built, r: r, cancel: cancel, ended: make(chan struct{})}
	go func() {
		a.err = a.Run(ctx)
		close(a.ended)
	}()
	r.Cleanup(func() { _ = a.stop() })
	return a
}

// stop ends it as SIGTERM does and returns what Run did.
func (a *app) stop() error {
	a.cancel()
	return a.end(time.Minute)
}

// end waits for the end of Run.
func (a *app) end(limit time.Duration) error {
	select {
	case <-a.ended:
		return a.err
	case <-time.After(limit):
		return errors.New("Run did not end in " + limit.String())
	}
}

func (a *app) ready() {
	a.r.Helper()
	eventually(a.r.T, "it is ready", func() error { return a.expect("/readyz", http.StatusOK) })
}

func (a *app) expect(path string, want int) error {
	status, body, err := get("http://" + a.Address() + path)
	if err == nil && status != want {
		err = fmt.Errorf("%s: %d %s, want %d", path, status, body, want)
	}
	return err
}

// publish posts an event and returns the answer's status.
func (a *app) publish(project, id string) int {
	a.r.Helper()
	body := fmt.Sprintf(`{"id":%q,"type":"build.completed","source":"test","data":{"project":%q}}`, id, project)
	status, _, err := stack.Post(a.r.Context(), http.DefaultClient, "http://"+a.Address()+"/api/v1/events", body)
	a.r.must(err)
	return status
}

// accepted publishes an event that must be taken.
func (a *app) accepted(project, id string) {
	a.r.Helper()
	if status := a.publish(project, id); status != http.StatusAccepted {
		a.r.Fatalf("publish %s: %d, want 202", id, status)
	}
}

func (a *app) metrics() string {
	a.r.Helper()
	status, body, err := get("http://" + a.MetricsAddress() + "/metrics")
	if err != nil || status != http.StatusOK {
		a.r.Fatalf("metrics: %d %v", status, err)
	}
	return body
}

func get(url string) (int, string, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// subscribe makes a subscription to path for events of the project of its name, with its signing key.
func (r *rig) subscribe(name, path string, change func(*v1alpha1.WebhookSubscriptionSpec)) *v1alpha1.WebhookSubscription {
	r.Helper()
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace}}
	sub.Spec = v1alpha1.WebhookSubscriptionSpec{
		URL: r.receiver.URL + path, Events: []string{"build.completed"}, Filter: &v1alpha1.EventFilter{Project: name},
		RateLimitPerMinute: new(int32(100_000)),
		Signing:            &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: name + "-key"}},
	}
	if change != nil {
		change(&sub.Spec)
	}
	r.secret(name+"-key", map[string]string{v1alpha1.DefaultSigningKey: signingKey})
	r.must(r.client.Create(r.Context(), sub))
	r.Cleanup(func() { _ = r.client.Delete(context.Background(), sub) })
	return sub
}

func (r *rig) secret(name string, data map[string]string) {
	r.Helper()
	r.must(r.client.Create(r.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace},
		Type:       v1alpha1.SecretTypeSigningKey, StringData: data,
	}))
}

// arrived waits for that many requests below path.
func (r *rig) arrived(path string, count int) []receiver.Arrival {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	list, err := r.receiver.Wait(ctx, path, func(l []receiver.Arrival) bool { return len(l) >= count })
	r.must(err)
	return list
}

// status waits until the subscription's status is as check wants it.
func (r *rig) status(sub *v1alpha1.WebhookSubscription, check func(*v1alpha1.DeliveryStatus) bool) {
	r.Helper()
	eventually(r.T, "the status tells", func() error {
		err := r.client.Get(r.Context(), client.ObjectKeyFromObject(sub), sub)
		if err == nil && (sub.Status.Delivery == nil || !check(sub.Status.Delivery)) {
			err = fmt.Errorf("status.delivery is %+v", sub.Status.Delivery)
		}
		return err
	})
}

// eventually polls until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// log keeps all that is logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) has(parts ...string) error {
	for line := range strings.Lines(l.String()) {
		if containsAll(line, parts) {
			return nil
		}
	}
	return fmt.Errorf("no line of the log has %q", parts)
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// gate is the way to the Kubernetes API, which can be shut.
type gate struct {
	mu    sync.Mutex
	isOut bool
	conns map[net.Conn]bool
}

func newGate() *gate { return &gate{conns: map[net.Conn]bool{}} }

var errShut = errors.New("connect: connection refused")

func (g *gate) config() *rest.Config {
	c := rest.CopyConfig(cluster.Config)
	c.QPS = -1
	c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.isOut {
			return nil, errShut
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err == nil {
			g.conns[conn] = true
		}
		return conn, err
	}
	return c
}

// shut breaks every connection and refuses new ones.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isOut = true
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isOut = false
}
