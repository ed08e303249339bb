// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	kuberest "k8s.io/client-go/rest"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/test/kube"
)

const patience = 30 * time.Second

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// bench is an Authenticator over a real API server, with a way to it that can be shut and counts, and a clock that can be
// put forward.
type bench struct {
	*testing.T
	*Authenticator
	admin     kubernetes.Interface
	namespace string
	registry  *prometheus.Registry
	log       *syncedBuffer

	ahead    atomic.Int64 // of the clock, in nanoseconds
	requests atomic.Int64 // that reached for the API server
	hold     atomic.Pointer[chan struct{}]

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	b := &bench{T: t, namespace: cluster.Namespace(t.Context(), t, "access"), registry: prometheus.NewRegistry(),
		log: &syncedBuffer{}, conns: map[net.Conn]bool{}}
	var err error
	b.admin, err = kubernetes.NewForConfig(cluster.Config)
	b.must(err)
	o := Options{
		Config: b.reviewer(), Audience: DefaultAudience, Outage: 5 * time.Minute, Registerer: b.registry,
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:    func() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) },
	}
	if change != nil {
		change(&o)
	}
	b.Authenticator, err = New(o)
	b.must(err)
	t.Cleanup(b.away)
	return b
}

// reviewer connects as somebody who may review, and do nothing else.
func (b *bench) reviewer() *kuberest.Config {
	b.Helper()
	config := cluster.Account(b.Context(), b, b.namespace, "reviewer")
	b.grant("reviewer", rbacv1.PolicyRule{APIGroups: []string{"authentication.k8s.io"},
		Resources: []string{"tokenreviews"}, Verbs: []string{"create"}})
	b.grant("reviewer", rbacv1.PolicyRule{APIGroups: []string{"authorization.k8s.io"},
		Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}})
	config.Dial = b.dial
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{b, next} })
	return config
}

type counting struct {
	b    *bench
	next http.RoundTripper
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.b.requests.Add(1)
	if hold := c.b.hold.Load(); hold != nil {
		select {
		case <-*hold:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return c.next.RoundTrip(r)
}

func (b *bench) dial(ctx context.Context, network, address string) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return nil, errors.New("connect: connection refused")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		b.conns[conn] = true
	}
	return conn, err
}

// away breaks every connection to the API server and refuses new ones.
func (b *bench) away() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = true
	for c := range b.conns {
		_ = c.Close()
	}
	clear(b.conns)
}

func (b *bench) back() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = false
}

func (b *bench) forward(d time.Duration) { b.ahead.Add(int64(d)) }

// grant lets a ServiceAccount of the bench's namespace do something everywhere, until the returned function is called.
func (b *bench) grant(account string, rule rbacv1.PolicyRule) (revoke func()) {
	b.Helper()
	meta := metav1.ObjectMeta{GenerateName: account + "-"}
	role, err := b.admin.RbacV1().ClusterRoles().Create(b.Context(),
		&rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	b.must(err)
	binding, err := b.admin.RbacV1().ClusterRoleBindings().Create(b.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: b.namespace, Name: account}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
	}, metav1.CreateOptions{})
	b.must(err)
	user := "system:serviceaccount:" + b.namespace + ":" + account
	resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: rule.APIGroups[0], Verb: rule.Verbs[0], Resource: resource, Subresource: subresource,
		},
	}}
	eventually(b.T, "the API server knows of the right", func() bool {
		answer, err := b.admin.AuthorizationV1().SubjectAccessReviews().Create(b.Context(), review, metav1.CreateOptions{})
		b.must(err)
		return answer.Status.Allowed
	})
	return func() {
		b.Helper()
		b.must(b.admin.RbacV1().ClusterRoleBindings().Delete(context.Background(), binding.Name, metav1.DeleteOptions{}))
	}
}

var mayPublish = rbacv1.PolicyRule{APIGroups: []string{"webhooks.nexus.io"}, Resources: []string{"events"},
	Verbs: []string{"create"}}

var publish = rest.Action{Verb: "create", Resource: "events"}

func (b *bench) token(account string) string {
	b.Helper()
	return cluster.Token(b.Context(), b, b.namespace, account, DefaultAudience)
}

// request is one with a token, from the usual address.
func request(token string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/events", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// status is what a request with this token gets for an action, 200 where it may.
func (b *bench) status(token string, do rest.Action) int {
	b.Helper()
	caller, problem := b.Authenticate(request(token))
	if problem == nil {
		problem = rest.Refusal(caller.May(b.Context(), do))
	}
	if problem == nil {
		return http.StatusOK
	}
	return problem.Status
}

func (b *bench) expect(what, token string, want int) {
	b.Helper()
	if got := b.status(token, publish); got != want {
		b.Errorf("%s: %d, want %d", what, got, want)
	}
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
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

// count is a counter's value.
func (b *bench) count(name string, labels ...string) float64 {
	b.Helper()
	families, err := b.registry.Gather()
	b.must(err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(values, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	b.Fatalf("no metric %s %v", name, labels)
	return 0
}

type syncedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *syncedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *syncedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
