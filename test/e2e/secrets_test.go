// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/pki"
	"nexus.io/webhooks/test/postgrestest"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

// Secrets of these names show in some places, as users are told.
const (
	inURL     = "capability in a URL"      // where a subscription shows its URL, and a delivery the one that it went to
	inQuery   = "token in a URL's query"   // where a subscription shows its URL
	inEvent   = "what an event says"       // in the queue and the history, and to those who may look at deliveries
	inAnswer  = "what an endpoint answers" // the same
	ownSecret = "signing key of one's own"
)

// hunt plants secrets and looks for them.
type hunt struct {
	*scene
	secrets  map[string]string // by name
	redis    *redistest.Server
	postgres *postgrestest.Server
	database string
	receiver *receiver.Receiver
	env      []string
	subs     map[string]*v1alpha1.WebhookSubscription
	arrivals int
}

// No secret is anywhere but in the requests that it is for: not in logs, at their most verbose, Events, statuses,
// metrics, profiles, the queue, the history, answers, errors or the last words of a program that is aborted.
func TestNoSecretLeavesButInRequests(t *testing.T) {
	h := newHunt(t)
	h.subscribeAll()
	h.deliver()
	h.rotateAll()
	h.deliver()
	h.searchAPI()
	h.searchCluster()
	h.searchStores()
	h.searchListeners()
	h.breakStores()
	h.abort()
	h.searchStarts()
}

func newHunt(t *testing.T) *hunt {
	t.Helper()
	h := &hunt{scene: newScene(t), secrets: map[string]string{
		"password of Redis": "redis-password-7f3a", "password of PostgreSQL": "postgres-password-e0b2",
		"header from a Secret": "header-value-9c1d", inURL: "url-token-51be", inQuery: "query-token-0d4c",
		inEvent: "event-data-88ac", inAnswer: "answer-text-3b6e", ownSecret: "own-key-that-nobody-may-print-a7",
		"secret of a trial": "trial-secret-64fd", "another scheme's credentials": "basic-credentials-2e90",
		"secret in a mistake": "mistaken-field-c41b",
	}, subs: map[string]*v1alpha1.WebhookSubscription{}}
	var err error
	h.receiver, err = receiver.Start()
	h.must(err)
	t.Cleanup(h.receiver.Close)
	h.redis = redistest.ForTest(t, "--appendonly", "yes")
	redis := h.redis.Client()
	h.must(redis.Do(t.Context(), "ACL", "SETUSER", "nexus", "on", ">"+h.secrets["password of Redis"], "~*", "&*", "+@all").Err())
	h.must(redis.Close())
	h.postgres = postgrestest.ForTest(t)
	h.database, err = h.postgres.Database(t.Context())
	h.must(err)
	h.env = []string{
		"REDIS_URL=redis://nexus:" + h.secrets["password of Redis"] + "@" + h.redis.Address,
		"POSTGRES_URL=" + strings.Replace(h.database, "@", ":"+h.secrets["password of PostgreSQL"]+"@", 1),
	}
	rights := shippedRights(t, "default")
	for _, program := range []string{"manager", "dispatcher"} {
		h.give(program, of(program, rights))
	}
	h.start("manager", need{})
	h.start("dispatcher", need{env: h.env, flags: []string{"--egress-allow-networks=127.0.0.0/8", "--profiling"}})
	h.must(errors.Join(h.manager.WaitReady(t.Context()), h.dispatcher.WaitReady(t.Context())))
	for program, token := range h.tokens {
		h.secrets["token of the "+program] = token
	}
	h.token = cluster.Token(t.Context(), t, h.namespace, "caller", "nexus-webhooks")
	h.secrets["token of a caller"] = h.token
	for _, role := range []string{"webhooksubscription_admin_role", "event_publisher_role"} {
		cluster.Grant(t.Context(), t, role, "", kube.Subject(h.namespace, "caller"))
	}
	return h
}

// search looks for all secrets in a text, but for those that may be there.
func (h *hunt) search(where, text string, but ...string) {
	h.Helper()
	text = strings.ReplaceAll(text, `\`, "")
	for name, secret := range h.secrets {
		if slices.Contains(but, name) {
			continue
		}
		forms := []string{secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret)),
			strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")}
		if at := strings.LastIndex(secret, "."); at >= 0 { // a token without its signature is of no use
			forms = append(forms, secret[at:])
		}
		for _, form := range forms {
			if i := strings.Index(text, form); i >= 0 {
				h.Errorf("the %s is in %s: ...%q...", name, where, text[max(0, i-300):min(len(text), i+100)])
				break
			}
		}
	}
}

// subscribeAll makes subscriptions to all kinds of endpoints, all of which get a header from a Secret.
func (h *hunt) subscribeAll() {
	h.Helper()
	readable := map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue}
	servers, clients := pki.NewAuthority(h, "servers"), pki.NewAuthority(h, "clients")
	certificate, key := clients.Issue("client")
	h.secrets["key of a client certificate"] = strings.Split(string(key), "\n")[1]
	about := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: h.namespace, Name: name, Labels: readable}
	}
	h.make(&corev1.Secret{ObjectMeta: about("headers"), StringData: map[string]string{
		"auth": "Bearer " + h.secrets["header from a Secret"],
	}})
	h.make(&corev1.Secret{ObjectMeta: about("own"), StringData: map[string]string{
		v1alpha1.DefaultSigningKey: h.secrets[ownSecret],
	}})
	h.make(&corev1.Secret{ObjectMeta: about("client"), Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}})
	h.make(&corev1.ConfigMap{ObjectMeta: about("servers"), Data: map[string]string{"ca.crt": string(servers.Bundle())}})

	closed, path := h.freeAddress(), "/"+h.secrets[inURL]+"?token="+h.secrets[inQuery]
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, "%s %v %s %s", h.secrets[inAnswer], r.Header, r.URL.Path, body)
	}))
	h.Cleanup(echo.Close)
	for name, at := range map[string]string{
		"ok": h.receiver.URL + "/ok", "refusing": h.receiver.URL + "/status/401", "gone": h.receiver.URL + "/status/410",
		"hanging": h.receiver.URL + "/hang", "redirecting": h.receiver.URL + "/status/302", "closed": "http://" + closed,
		"denied": "https://10.0.0.1", "unresolved": "https://nowhere.invalid", "own-key": h.receiver.URL + "/ok",
		"plain": "https" + strings.TrimPrefix(h.receiver.URL, "http"), "echo": echo.URL,
		"mutual": startMutual(h.T, servers, clients).URL,
	} {
		sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: name}}
		sub.Spec = v1alpha1.WebhookSubscriptionSpec{
			URL: at + path, Events: []string{"build.completed"}, TimeoutSeconds: new(int32(1)),
			Retry: &v1alpha1.RetryPolicy{MaxRetries: new(int32(0))},
			Headers: []v1alpha1.Header{{Name: "Authorization", ValueFrom: &v1alpha1.HeaderValueSource{
				SecretKeyRef: v1alpha1.SecretKeyReference{Name: "headers", Key: "auth"},
			}}},
		}
		switch name {
		case "own-key":
			sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}}
		case "mutual":
			sub.Spec.TLS = &v1alpha1.TLS{
				CABundle:          &v1alpha1.CABundleSource{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "servers", Key: "ca.crt"}},
				ClientCertificate: &v1alpha1.ClientCertificateSource{SecretRef: v1alpha1.SecretReference{Name: "client"}},
			}
		}
		h.make(sub)
		h.subs[name] = sub
	}
	for name, sub := range h.subs {
		h.sub = sub
		h.ready()
		h.noteKeys(name)
	}
}

// noteKeys adds the keys with which a subscription's requests are signed.
func (h *hunt) noteKeys(name string) {
	h.Helper()
	h.sub = h.subs[name]
	if name == "own-key" {
		return
	}
	secret, err := h.key(h.Context())
	h.must(err)
	for field, key := range secret.Data {
		h.secrets[field+" key of "+name] = string(key)
	}
}

// deliver publishes an event that all get, and waits until each attempt has ended.
func (h *hunt) deliver() {
	h.Helper()
	h.arrivals++
	event := fmt.Sprintf(`{"id":"hunt-%d","type":"build.completed","source":"test","data":{"project":"p","said":%q}}`,
		h.arrivals, h.secrets[inEvent])
	eventually(h.T, 30*time.Second, "the event is taken by all", func(context.Context) error {
		status, text := h.ask("POST", "/api/v1/events/explain?namespace="+h.namespace, event)
		if matched := strings.Count(text, `"matches":true`); status != 200 || matched != len(h.subs) {
			return fmt.Errorf("%d, %d match: %s", status, matched, text)
		}
		return nil
	})
	if status, text := h.ask("POST", "/api/v1/events", event); status != 202 {
		h.Fatalf("publish: %d %s", status, text)
	}
	for name, sub := range h.subs {
		eventually(h.T, 30*time.Second, "the attempt of "+name+" has ended", func(ctx context.Context) error {
			err := h.client.Get(ctx, client.ObjectKeyFromObject(sub), sub)
			if d := sub.Status.Delivery; err == nil && (d == nil || d.Successful+d.Failed != int64(h.arrivals)) {
				err = fmt.Errorf("its status is %+v", sub.Status)
			}
			return err
		})
	}
	for _, name := range []string{"ok", "own-key", "mutual"} {
		if h.subs[name].Status.Delivery.Successful != int64(h.arrivals) {
			h.Errorf("%s got nothing: %+v", name, h.subs[name].Status)
		}
	}
	got := h.receiver.Arrivals("/ok")
	for _, a := range got[len(got)-2:] {
		if a.Header.Get("Authorization") != "Bearer "+h.secrets["header from a Secret"] {
			h.Errorf("a request lacks its header: %+v", a)
		}
	}
}

// rotateAll begins overlaps, in which both keys sign.
func (h *hunt) rotateAll() {
	h.Helper()
	h.secrets["new "+ownSecret] = "own-key-that-is-another-one-58"
	h.must(h.client.Update(h.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: h.namespace, Name: "own", Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
	}, StringData: map[string]string{v1alpha1.DefaultSigningKey: h.secrets["new "+ownSecret]}}))
	for name, sub := range h.subs {
		if name == "own-key" {
			continue
		}
		if status, text := h.ask("POST", "/api/v1/subscriptions/"+sub.Status.ID+"/rotate-secret", ""); status != 200 {
			h.Fatalf("rotate %s: %d %s", name, status, text)
		}
		h.noteKeys(name)
	}
	eventually(h.T, 30*time.Second, "the overlap of one's own has begun", func(ctx context.Context) error {
		err := h.client.Get(ctx, client.ObjectKeyFromObject(h.subs["own-key"]), h.subs["own-key"])
		if s := h.subs["own-key"].Status.SigningSecret; err == nil && (s == nil || s.PreviousValidUntil == nil) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}

// ask calls the API as somebody who may do all.
func (h *hunt) ask(method, path, body string) (int, string) {
	h.Helper()
	return h.fetch(method, h.dispatcher.URL+path, body, "Bearer "+h.token)
}

func (h *hunt) fetch(method, target, body, credentials string) (int, string) {
	h.Helper()
	request, err := http.NewRequestWithContext(h.Context(), method, target, strings.NewReader(body))
	h.must(err)
	if credentials != "" {
		request.Header.Set("Authorization", credentials)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	h.must(err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	h.must(err)
	return response.StatusCode, string(text)
}

// searchAPI looks at all that the API tells somebody who may see all.
func (h *hunt) searchAPI() {
	h.Helper()
	var all []struct {
		ID string `json:"id"`
	}
	_, list := h.ask("GET", "/api/v1/deliveries?limit=100", "")
	h.must(json.Unmarshal([]byte(list), &all))
	if len(all) < 2*len(h.subs) {
		h.Errorf("%d deliveries are listed", len(all))
	}
	for _, d := range all {
		status, text := h.ask("GET", "/api/v1/deliveries/"+d.ID, "")
		if status != 200 {
			h.Errorf("delivery %s: %d %s", d.ID, status, text)
		}
		h.search("a delivery", text, inURL, inEvent, inAnswer)
	}
	for path, but := range map[string][]string{
		"/api/v1/deliveries?limit=100": {inURL, inEvent, inAnswer}, "/api/v1/events/hunt-1": {inURL, inEvent, inAnswer},
		"/api/v1/subscriptions?limit=100": {inURL, inQuery}, "/api/v1/subscriptions/" + h.subs["echo"].Status.ID: {inURL, inQuery},
		"/api/v1/deliveries/pending": nil, "/api/v1/stats": nil, "/api/v1/event-types": nil, "/openapi.json": nil,
		"/docs": nil, "/health": nil, "/healthz": nil, "/readyz": nil,
	} {
		status, text := h.ask("GET", path, "")
		if status != 200 {
			h.Errorf("%s: %d %s", path, status, text)
		}
		h.search(path, text, but...)
	}
	h.searchMistakes()
}

// searchMistakes looks at what callers are told who send secrets where none belong; the log is looked at later.
func (h *hunt) searchMistakes() {
	h.Helper()
	mistake, trial := h.secrets["secret in a mistake"], h.secrets["secret of a trial"]
	for body, path := range map[string]string{
		`{"type":"` + mistake + `"`: "/api/v1/events", `{"name":"m","url":"https://u:` + mistake + `@a.test/","events":["*"]}`: "/api/v1/subscriptions",
		`{"url":"` + h.receiver.URL + `/status/500","secret":"` + trial + `"}`:             "/api/v1/test",
		`{"payload":"p","timestamp":"1","signature":"sha256=00","secret":"` + trial + `"}`: "/api/v1/verify-signature",
	} {
		_, text := h.ask("POST", path, body)
		h.search("the answer of "+path, text)
	}
	basic := "Basic " + h.secrets["another scheme's credentials"]
	for _, credentials := range []string{basic, "Bearer " + basic, h.token, "Bearer " + h.token[:len(h.token)-4] + "AAAA"} {
		status, text := h.fetch("GET", h.dispatcher.URL+"/api/v1/stats", "", credentials)
		if status != 401 {
			h.Errorf("credentials that are none: %d %s", status, text)
		}
		h.search("the answer to wrong credentials", text)
	}
}

// searchCluster looks at what the programs wrote into the cluster.
func (h *hunt) searchCluster() {
	h.Helper()
	for name, sub := range h.subs {
		text, err := json.Marshal(sub.Status)
		h.must(err)
		h.search("the status of "+name, string(text))
	}
	var old corev1.EventList
	var all eventsv1.EventList
	h.must(errors.Join(h.client.List(h.Context(), &all, client.InNamespace(h.namespace)),
		h.client.List(h.Context(), &old, client.InNamespace(h.namespace))))
	if len(all.Items) < len(h.subs) {
		h.Errorf("%d Events", len(all.Items))
	}
	text, err := json.Marshal([]any{all, old})
	h.must(err)
	h.search("the Events", string(text))
}

// searchStores looks at all that Redis and PostgreSQL hold.
func (h *hunt) searchStores() {
	h.Helper()
	redis := h.redis.Client()
	defer func() { _ = redis.Close() }()
	h.must(redis.Save(h.Context()).Err()) // of what is still compressed there, searchAPI shows the contents
	for _, file := range []string{"dump.rdb", "appendonlydir"} {
		h.must(filepath.WalkDir(filepath.Join(h.redis.Dir, file), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			h.search("Redis", string(text), inURL, inEvent, inAnswer)
			return err
		}))
	}
	conn, err := pgx.Connect(h.Context(), h.database)
	h.must(err)
	defer func() { _ = conn.Close(context.Background()) }()
	eventually(h.T, 30*time.Second, "the history is complete", func(ctx context.Context) error {
		rows, err := texts(ctx, conn)
		if err == nil && len(rows) < 2*len(h.subs) {
			err = fmt.Errorf("%d rows", len(rows))
		}
		h.search("PostgreSQL", strings.Join(rows, "\n"), inURL, inEvent, inAnswer)
		return err
	})
}

// searchListeners looks at what operators can fetch.
func (h *hunt) searchListeners() {
	h.Helper()
	for target, want := range map[string]int{
		h.dispatcher.MetricsURL + "/metrics": 200, h.dispatcher.MetricsURL + "/debug/pprof/goroutine?debug=2": 200,
		h.dispatcher.MetricsURL + "/debug/pprof/heap?debug=1": 200, h.dispatcher.MetricsURL + "/debug/pprof/": 200,
		h.dispatcher.MetricsURL + "/debug/pprof/cmdline": 404, h.manager.MetricsURL + "/metrics": 200,
		h.manager.MetricsURL + "/debug/pprof/": 404, h.manager.URL + "/readyz?verbose": 200, h.manager.URL + "/healthz": 200,
	} {
		status, text := h.fetch("GET", target, "", "Bearer "+h.token)
		if status != want {
			h.Errorf("%s: %d %.200s", target, status, text)
		}
		h.search(target, text)
	}
}

// breakStores makes the ways to Redis and PostgreSQL fail, whose errors know the passwords.
func (h *hunt) breakStores() {
	h.Helper()
	h.redis.Kill() // the user is gone with it: from now on the password is wrong
	h.postgres.Kill()
	h.ask("POST", "/api/v1/events", `{"id":"late","type":"build.completed","source":"test"}`)
	h.must(h.redis.Restart())
	eventually(h.T, 30*time.Second, "Redis refuses the password", func(context.Context) error {
		_, ready := h.fetch("GET", h.dispatcher.URL+"/readyz", "", "")
		h.search("the readiness", ready)
		if !strings.Contains(h.dispatcher.Log(), "WRONGPASS") {
			return errors.New("the log does not say so")
		}
		return nil
	})
	_, text := h.ask("GET", "/api/v1/deliveries", "")
	h.search("an answer without a history", text)
}

// abort has the programs write what all their goroutines do, which is what a panic does.
func (h *hunt) abort() {
	h.Helper()
	for _, p := range []*stack.Process{h.manager, h.dispatcher} {
		h.must(p.Signal(syscall.SIGQUIT))
		_, _ = p.Wait()
		log := p.Log()
		for _, part := range []string{"SIGQUIT", "goroutine ", `"level":"DEBUG"`} {
			if !strings.Contains(log, part) {
				h.Errorf("the log of %s has no %s", p.Name, part)
			}
		}
		h.search("the log of the "+p.Name, log)
	}
}

// searchStarts looks at what the programs say that only look at their settings, or cannot start with them.
func (h *hunt) searchStarts() {
	h.Helper()
	wrong := []string{
		"REDIS_URL=redis://nexus:" + h.secrets["password of Redis"] + "@host:port",
		"POSTGRES_URL=postgres://nexus:" + h.secrets["password of PostgreSQL"] + "@host:port/nowhere",
	}
	for _, env := range [][]string{h.env, wrong} {
		for _, args := range [][]string{{"--help"}, {"--version"}, {"--listen-address=127.0.0.1:0", "--kubeconfig=/none"}} {
			for _, program := range []string{"manager", "dispatcher"} {
				command := exec.CommandContext(h.Context(), filepath.Join(h.bin, program), args...)
				command.Env = append(os.Environ(), env...)
				output, _ := command.CombinedOutput() // some end in errors
				h.search(program+" "+args[0], string(output))
			}
		}
	}
}
