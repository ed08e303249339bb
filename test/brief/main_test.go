// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package brief runs what the users' document shows (testdata/webhooks.md), to the letter, against the programs as they
// ship: its consumers in their own languages, its commands, its calls, and each word of it that a program may rely on.
package brief

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/contract"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	code := kube.Run(m, func(c *kube.Cluster) { cluster = c })
	stack.Cleanup()
	os.Exit(code)
}

// namespace is where the API creates subscriptions whose request names none, as those of the document do.
const namespace = "default"

// audience is what tokens of callers are made for.
const audience = "nexus-webhooks"

// patience bounds what a test waits for.
const patience = 30 * time.Second

// world is the document beside the running service.
type world struct {
	*document
	stack    *stack.Stack
	contract *contract.Contract
	dir      string
	token    string            // of who makes the calls, "" where everybody may
	operator string            // that of who looks after the service in all namespaces
	postgres string            // URL of the history, "" without one
	ended    map[string]string // deliveries that were seen to end, and how
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return startWorld(t)
}

func startWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	c, err := contract.Load()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{document: readDocument(t), contract: c, dir: t.TempDir(), ended: map[string]string{}}
	w.stack = stack.Start(t, stack.Options{Cluster: cluster, Dispatchers: 1, Flags: flags})
	return w
}

// reply is an answer of the service.
type reply struct {
	status int
	text   string
}

// call sends a request, whose answer must be a documented one.
func (w *world) call(t *testing.T, method, target, body string) reply {
	t.Helper()
	return w.callWith(t, w.token, method, target, body)
}

func (w *world) callWith(t *testing.T, token, method, target, body string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, w.stack.Dispatchers[0].URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.contract.Check(request, []byte(body), response.StatusCode, response.Header, text); err != nil {
		t.Errorf("the API and its description differ: %v", err)
	}
	return reply{response.StatusCode, string(text)}
}

// object is the JSON object of an answer with the status.
func (r reply) object(t *testing.T, status int) map[string]any {
	t.Helper()
	found := map[string]any{}
	if err := json.Unmarshal([]byte(r.text), &found); err != nil || r.status != status {
		t.Fatalf("answer %d %s (%v), want %d", r.status, r.text, err, status)
	}
	return found
}

// shell runs a command as it is printed. curl finds the dispatcher where the document says that it is, and shows it the
// token.
func (w *world) shell(t *testing.T, text string) (string, error) {
	t.Helper()
	at, err := url.Parse(w.stack.Dispatchers[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("connect-to = \"webhooks:8087:%s\"\nnoproxy = \"*\"\nfail-with-body\nsilent\nshow-error\n", at.Host)
	if w.token != "" {
		settings += fmt.Sprintf("header = \"Authorization: Bearer %s\"\n", w.token)
	}
	if err := os.WriteFile(filepath.Join(w.dir, ".curlrc"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "bash", "-c", text)
	command.Env = append(os.Environ(), "CURL_HOME="+w.dir)
	var errors strings.Builder
	command.Stderr = &errors
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s%s", err, errors.String(), out)
	}
	return string(out), err
}

// subscribe creates a subscription, whose events are those of the family.
func (w *world) subscribe(t *testing.T, to, events, more string) (id, secret string) {
	t.Helper()
	body := fmt.Sprintf(`{"name":%q,"url":%q,"events":[%q]%s}`, t.Name(), to, events, more)
	made := w.call(t, http.MethodPost, "/api/v1/subscriptions", body).object(t, http.StatusCreated)
	secret, _ = made["secret"].(string)
	w.endsWithTest(t, made)
	return made["id"].(string), secret
}

// endsWithTest deletes a subscription after the test, so that no other test's events go there, and the Secret with its
// key, which nothing here collects.
func (w *world) endsWithTest(t *testing.T, made map[string]any) {
	t.Cleanup(func() {
		sub := &v1alpha1.WebhookSubscription{}
		sub.Namespace, sub.Name = namespace, made["resource_name"].(string)
		if err := w.stack.Client.Delete(context.Background(), sub); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
		secret := &corev1.Secret{}
		secret.Namespace, secret.Name = namespace, v1alpha1.GeneratedSecretName(sub.Name)
		if err := w.stack.Client.Delete(context.Background(), secret); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// ownKey makes the Secret of a user who brings a key.
func (w *world) ownKey(t *testing.T, name, key string) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Type:       v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{v1alpha1.DefaultSigningKey: key},
	}
	if err := w.stack.Client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.stack.Client.Delete(context.Background(), secret) })
}

// publish publishes an event that must match.
func (w *world) publish(t *testing.T, eventType string, data json.RawMessage) (deliveryID string) {
	t.Helper()
	body := fmt.Sprintf(`{"type":%q,"source":"brief","data":%s}`, eventType, data)
	answer := w.call(t, http.MethodPost, "/api/v1/events", body)
	var found struct {
		Deliveries []struct {
			DeliveryID string `json:"delivery_id"`
		}
	}
	if err := json.Unmarshal([]byte(answer.text), &found); err != nil || len(found.Deliveries) == 0 {
		t.Fatalf("answer %d %s: %v", answer.status, answer.text, err)
	}
	return found.Deliveries[0].DeliveryID
}

// eventually polls until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// ends waits until a delivery has this status.
func (w *world) ends(t *testing.T, deliveryID, status string) {
	t.Helper()
	eventually(t, "delivery "+deliveryID+" is "+status, func() error {
		d := w.call(t, http.MethodGet, "/api/v1/deliveries/"+deliveryID, "").object(t, http.StatusOK)
		if d["status"] != status {
			return fmt.Errorf("it is %v: %v", d["status"], d["error_message"])
		}
		return nil
	})
	w.ended[deliveryID] = status
}
