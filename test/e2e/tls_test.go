// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/pki"
	"nexus.io/webhooks/test/stack"
)

// mutual is an https endpoint that takes requests only from clients of an authority.
type mutual struct {
	*httptest.Server
	connections atomic.Int64
	config      atomic.Pointer[tls.Config]

	mu       sync.Mutex
	requests int
	client   string // of the last request, by its certificate
	team     string // header X-Team of the last request
}

func startMutual(t *testing.T, server, clients *pki.Authority) *mutual {
	t.Helper()
	m := &mutual{}
	m.Server = httptest.NewUnstartedServer(m)
	m.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			m.connections.Add(1)
		}
	}
	m.present(t, server, clients)
	m.TLS = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return m.config.Load(), nil },
	}
	m.StartTLS()
	t.Cleanup(m.Close)
	return m
}

// present makes the endpoint's next connections show a certificate by one authority and ask for one by another.
func (m *mutual) present(t *testing.T, server, clients *pki.Authority) {
	t.Helper()
	pair, err := tls.X509KeyPair(server.Issue("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	m.config.Store(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool(),
		SessionTicketsDisabled: true, // each connection shows what it has
	})
}

func (m *mutual) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	m.client, m.team = r.TLS.PeerCertificates[0].Subject.CommonName, r.Header.Get("X-Team")
}

func (m *mutual) last() (requests int, client, team string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests, m.client, m.team
}

func (m *mutual) wait(t *testing.T, requests int) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%d requests come", requests), func(context.Context) error {
		if got, _, _ := m.last(); got < requests {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
}

// put creates an object that opts in, or changes it.
func put(t *testing.T, s *stack.Stack, object client.Object, patch string) {
	t.Helper()
	object.SetNamespace(s.Namespace)
	object.SetLabels(map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue})
	var err error
	if patch == "" {
		err = s.Client.Create(t.Context(), object)
	} else {
		err = s.Client.Patch(t.Context(), object, client.RawPatch("application/merge-patch+json", []byte(patch)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func certificate(name string, chain, key []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key},
	}
}

// pairPatch puts another certificate into a Secret.
func pairPatch(chain, key []byte) string {
	return fmt.Sprintf(`{"stringData":{"tls.crt":%q,"tls.key":%q}}`, chain, key)
}

// failing waits until the status tells of a TLS trouble of a subscription.
func failing(t *testing.T, s *stack.Stack, sub *v1alpha1.WebhookSubscription) {
	t.Helper()
	eventually(t, 30*time.Second, "the status tells of the handshake", func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		if d := sub.Status.Delivery; d == nil || !strings.Contains(d.LastError, "TLS") {
			return fmt.Errorf("status.delivery is %+v", d)
		}
		return nil
	})
}

// A subscription with its own authorities and a certificate, and a header from a ConfigMap: all of it can change, and
// what waits meanwhile goes out.
func TestMutualTLSFollowsWhatItIsMadeOf(t *testing.T) {
	s := start(t, 1)
	one, two := pki.NewAuthority(t, "one"), pki.NewAuthority(t, "two")
	clients := pki.NewAuthority(t, "clients")
	endpoint := startMutual(t, one, clients)
	chain, key := clients.Issue("first")
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"},
		Data: map[string]string{"ca.crt": string(one.Bundle()), "team": "platform"}}
	pair := certificate("certificate", chain, key)
	put(t, s, bundle, "")
	put(t, s, pair, "")
	sub := subscribe(t, s, "mutual", "", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.URL = endpoint.URL
		spec.MaxInFlight = new(int32(1))
		spec.Retry = &v1alpha1.RetryPolicy{
			MaxRetries: new(int32(60)), InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(1)),
		}
		inSettings := func(key string) *v1alpha1.ConfigMapKeyReference {
			return &v1alpha1.ConfigMapKeyReference{Name: "settings", Key: key}
		}
		spec.Headers = []v1alpha1.Header{{Name: "X-Team", ValueFrom: &v1alpha1.HeaderValueSource{ConfigMapKeyRef: inSettings("team")}}}
		spec.TLS = &v1alpha1.TLS{
			CABundle:          &v1alpha1.CABundleSource{ConfigMapKeyRef: inSettings("ca.crt")},
			ClientCertificate: &v1alpha1.ClientCertificateSource{SecretRef: v1alpha1.SecretReference{Name: "certificate"}},
		}
	})
	const batch = 20
	sent := 0
	send := func(count int) {
		t.Helper()
		for range count {
			accepted(t, s, "mutual", fmt.Sprintf("mutual-%d", sent))
			sent++
		}
	}
	send(batch)
	endpoint.wait(t, sent)
	if _, client, team := endpoint.last(); client != "first" || team != "platform" {
		t.Errorf("the last request came from %q of %q", client, team)
	}
	if n := endpoint.connections.Load(); n != 1 {
		t.Errorf("%d connections for %d requests one after the other, want 1", n, sent)
	}

	// The endpoint comes to be vouched for by another authority, which the bundle lacks.
	endpoint.present(t, two, clients)
	endpoint.CloseClientConnections()
	send(1)
	failing(t, s, sub)
	if got, _, _ := endpoint.last(); got != sent-1 {
		t.Errorf("%d requests came, want %d: none to whom the bundle does not vouch for", got, sent-1)
	}
	put(t, s, bundle, fmt.Sprintf(`{"data":{"ca.crt":%q,"team":"infrastructure"}}`, two.Bundle()))
	endpoint.wait(t, sent)
	if _, _, team := endpoint.last(); team != "infrastructure" {
		t.Errorf("the header is %q", team)
	}

	// A certificate by an authority that the endpoint does not know, then a second one by the right authority.
	put(t, s, pair, pairPatch(two.Issue("stranger")))
	eventually(t, 30*time.Second, "the stranger is refused", func(context.Context) error {
		before := endpoint.connections.Load()
		send(1)
		select {
		case <-time.After(500 * time.Millisecond):
		case <-t.Context().Done():
		}
		if got, _, _ := endpoint.last(); got == sent {
			return fmt.Errorf("the request was taken, after %d connections", endpoint.connections.Load()-before)
		}
		return nil
	})
	failing(t, s, sub)
	put(t, s, pair, pairPatch(clients.Issue("second")))
	endpoint.wait(t, sent)
	if _, client, _ := endpoint.last(); client != "second" {
		t.Errorf("the last request came from %q", client)
	}
	before := endpoint.connections.Load()
	send(batch)
	endpoint.wait(t, sent)
	if n := endpoint.connections.Load() - before; n != 0 {
		t.Errorf("%d connections more for %d requests one after the other, want none", n, batch)
	}
	audit(t, s)
}
