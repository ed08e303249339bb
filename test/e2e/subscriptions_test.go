// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

// reply is an answer of the API.
type reply struct {
	status int
	header http.Header
	text   string
}

// secretShown is an answer that has a secret.
var secretShown = regexp.MustCompile(`"(new_|signature_)?secret":\s*"`)

// call sends a request to a dispatcher; a body is JSON.
func call(t *testing.T, s *stack.Stack, dispatcher int, method, target, body string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.Dispatchers[dispatcher].URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
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
	r := reply{response.StatusCode, response.Header, string(text)}
	document := strings.HasPrefix(target, "/openapi.json") // its examples hold none that is one
	if !document && secretShown.MatchString(r.text) && r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s shows a secret that others on the way may keep", method, target)
	}
	inContract(t, request, body, r)
	return r
}

// shown is what a test looks at of a subscription, and of the answers about one.
type shown struct {
	ID                 string          `json:"id"`
	SubscriptionID     string          `json:"subscription_id"`
	Name               string          `json:"name"`
	Namespace          string          `json:"namespace"`
	ResourceName       string          `json:"resource_name"`
	URL                string          `json:"url"`
	Secret             string          `json:"secret"`
	NewSecret          string          `json:"new_secret"`
	Status             string          `json:"status"`
	Description        *string         `json:"description"`
	RateLimit          int             `json:"rate_limit"`
	Active             bool            `json:"active"`
	Paused             bool            `json:"paused"`
	Pending            int             `json:"pending"`
	Health             string          `json:"health"`
	Successful         int             `json:"successful_deliveries"`
	Retry              json.RawMessage `json:"retry"`
	PreviousValidUntil *time.Time      `json:"previous_valid_until"`
}

// want decodes an answer that must have the status.
func (r reply) want(t *testing.T, status int) (s shown) {
	t.Helper()
	if r.status != status {
		t.Fatalf("answer %d %s, want %d", r.status, r.text, status)
	}
	if status >= 300 {
		if got := r.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("a refusal is %s", got)
		}
		return s
	}
	if err := json.Unmarshal([]byte(r.text), &s); err != nil {
		t.Fatalf("%s: %v", r.text, err)
	}
	return s
}

// made creates a subscription over HTTP, in the namespace of the stack; it ends with the test.
func made(t *testing.T, s *stack.Stack, body string) shown {
	t.Helper()
	sub := call(t, s, 0, "POST", "/api/v1/subscriptions?namespace="+s.Namespace, body).want(t, 201)
	endsWithTest(t, s, sub.ResourceName)
	return sub
}

func endsWithTest(t *testing.T, s *stack.Stack, name string) {
	t.Cleanup(func() {
		_ = s.Client.Delete(context.Background(), &v1alpha1.WebhookSubscription{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		})
	})
}

func resourceOf(t *testing.T, s *stack.Stack, sub shown) *v1alpha1.WebhookSubscription {
	t.Helper()
	found := &v1alpha1.WebhookSubscription{}
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: sub.Namespace, Name: sub.ResourceName}, found); err != nil {
		t.Fatal(err)
	}
	return found
}

func annotate(t *testing.T, s *stack.Stack, sub shown, name, value string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, name, value)
	if err := s.Client.Patch(t.Context(), resourceOf(t, s, sub), client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
}

// matched publishes to the first dispatcher and returns which subscriptions the event matched.
func matched(t *testing.T, s *stack.Stack, project, id string) (subscriptions []string) {
	t.Helper()
	var answer struct {
		Deliveries []struct {
			SubscriptionID string `json:"subscription_id"`
		} `json:"deliveries"`
	}
	r := call(t, s, 0, "POST", "/api/v1/events", event(project, id))
	if err := json.Unmarshal([]byte(r.text), &answer); err != nil || r.status != 202 {
		t.Fatalf("publish: %d %s", r.status, r.text)
	}
	for _, d := range answer.Deliveries {
		subscriptions = append(subscriptions, d.SubscriptionID)
	}
	return subscriptions
}

func TestSubscriptionsOverHTTP(t *testing.T) {
	s := start(t, 2)
	for name, test := range map[string]func(*testing.T, *stack.Stack){
		"the next event finds a new subscription and a change of it": nextEventFindsIt,
		"the secret is shown once and signs":                         secretIsShownOnce,
		"kubectl and the API see each other's":                       bothSeeEachOthers,
		"names are unique and readable":                              namesAreUnique,
		"many at once get a name and a secret each":                  manyAtOnce,
		"a patch changes, clears and keeps":                          patches,
		"pausing keeps, resuming sends":                              pausingKeeps,
		"a switched off subscription gets nothing":                   toggling,
		"a deleted subscription gets nothing":                        deleting,
		"a rotated key signs, and the old one meanwhile":             rotating,
		"a key of one's own is not rotated":                          ownKeyIsNotRotated,
		"what Git manages is changed by force alone":                 gitManaged,
		"changes of many at once are all kept":                       changesAtOnce,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func draft(name, url string) string {
	return fmt.Sprintf(`{"name":%q,"url":%q,"events":["build.completed"],"project_filter":%q,"rate_limit":100000}`, name, url, name)
}

func nextEventFindsIt(t *testing.T, s *stack.Stack) {
	for i := range 20 {
		name := fmt.Sprintf("next-%d", i)
		body := draft(name, s.Receiver.URL+"/ok/next")
		if i%2 == 1 { // no key is waited for, so that the table alone is
			body = strings.TrimSuffix(body, "}") + `,"signing":{"secret_ref":{"name":"none"}}}`
		}
		sub := made(t, s, body)
		if diff := cmp.Diff([]string{sub.ID}, matched(t, s, name, name)); diff != "" {
			t.Fatalf("after the creation (-want +got):\n%s", diff)
		}
		call(t, s, 0, "PATCH", "/api/v1/subscriptions/"+sub.ID, `{"project_filter":"x-`+name+`"}`).want(t, 200)
		if got := matched(t, s, name, name+"-2"); got != nil {
			t.Fatalf("after the change: %v", got)
		}
	}
}

func secretIsShownOnce(t *testing.T, s *stack.Stack) {
	r := call(t, s, 0, "POST", "/api/v1/subscriptions?namespace="+s.Namespace, draft("once", s.Receiver.URL+"/ok/once"))
	sub := r.want(t, 201)
	if len(sub.Secret) < 32 || r.header.Get("Cache-Control") != "no-store" || r.header.Get("Location") != "/api/v1/subscriptions/"+sub.ID {
		t.Errorf("%v %s", r.header, r.text)
	}
	for _, again := range []string{"/" + sub.ID, "?limit=1000"} {
		if text := call(t, s, 0, "GET", "/api/v1/subscriptions"+again, "").text; strings.Contains(text, sub.Secret) || strings.Contains(text, `"secret"`) {
			t.Errorf("%s shows a secret: %s", again, text)
		}
	}
	matched(t, s, "once", "once-1")
	list := waitFor(t, s, "/ok/once", 1)
	if !list[0].Verify(sub.Secret) {
		t.Error("the delivery is not signed with the secret that was shown")
	}
	if text := s.Dispatchers[0].Log(); strings.Contains(text, sub.Secret) {
		t.Error("the log shows the secret")
	}
	eventually(t, 30*time.Second, "the statistics show", func(context.Context) error {
		got := call(t, s, 0, "GET", "/api/v1/subscriptions/"+sub.ID, "").want(t, 200)
		if got.Successful != 1 || got.Health != "healthy" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

func waitFor(t *testing.T, s *stack.Stack, path string, count int) []receiver.Arrival {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	list, err := s.Receiver.Wait(ctx, path, func(l []receiver.Arrival) bool { return len(l) >= count })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func bothSeeEachOthers(t *testing.T, s *stack.Stack) {
	sub := made(t, s, `{"name":"Both Ways","url":"https://a.example/x","events":["build.*","release.failed"],"team_filter":"t",
		"severity_filter":["high"],"description":"d","timeout_seconds":7,"max_in_flight":3,"retry":{"max_retries":2},
		"headers":[{"name":"X-A","value":"b"}],"signing":{"rotation":{"interval_seconds":7200}}}`)
	want := v1alpha1.WebhookSubscriptionSpec{
		URL: "https://a.example/x", DisplayName: "Both Ways", Description: "d", Events: []string{"build.*", "release.failed"},
		Filter:         &v1alpha1.EventFilter{Team: "t", Severities: []string{"high"}},
		TimeoutSeconds: new(int32(7)), MaxInFlight: new(int32(3)), Retry: &v1alpha1.RetryPolicy{MaxRetries: new(int32(2))},
		Headers: []v1alpha1.Header{{Name: "X-A", Value: new("b")}},
		Signing: &v1alpha1.Signing{Rotation: &v1alpha1.KeyRotation{IntervalSeconds: 7200}},
	}
	resource := resourceOf(t, s, sub)
	if diff := cmp.Diff(want, resource.Spec); diff != "" || resource.Name != "both-ways" {
		t.Errorf("%s (-want +got):\n%s", resource.Name, diff)
	}
	if !slices.ContainsFunc(resource.ManagedFields, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == "nexus-webhooks-api" }) {
		t.Errorf("field owners: %+v", resource.ManagedFields)
	}
	other := subscribe(t, s, "of-kubectl", "/ok/both", nil)
	got := call(t, s, 1, "GET", "/api/v1/subscriptions/"+other.Status.ID, "").want(t, 200)
	if got.ResourceName != "of-kubectl" || got.Name != "of-kubectl" || got.URL != other.Spec.URL {
		t.Errorf("%+v", got)
	}
	if text := call(t, s, 1, "GET", "/api/v1/subscriptions?namespace="+s.Namespace, "").text; !strings.Contains(text, other.Status.ID) || !strings.Contains(text, sub.ID) {
		t.Errorf("the list lacks one of them: %s", text)
	}
}

func namesAreUnique(t *testing.T, s *stack.Stack) {
	first := made(t, s, draft("Same Name!", "https://a.example"))
	second := made(t, s, draft("Same Name!", "https://a.example"))
	if first.ResourceName != "same-name" || !strings.HasPrefix(second.ResourceName, "same-name-") || len(second.ResourceName) != 15 || first.ID == second.ID {
		t.Errorf("%q and %q", first.ResourceName, second.ResourceName)
	}
}

func manyAtOnce(t *testing.T, s *stack.Stack) {
	var mu sync.Mutex
	secrets, group := map[string]string{}, sync.WaitGroup{}
	for i := range 30 {
		group.Go(func() {
			r := call(t, s, i%2, "POST", "/api/v1/subscriptions?namespace="+s.Namespace, draft("many", "https://a.example"))
			mu.Lock()
			defer mu.Unlock()
			var sub shown
			if err := json.Unmarshal([]byte(r.text), &sub); err != nil || r.status != 201 || sub.Secret == "" {
				t.Errorf("%d %s", r.status, r.text)
			}
			secrets[sub.Secret] = sub.ResourceName
			endsWithTest(t, s, sub.ResourceName)
		})
	}
	group.Wait()
	if len(secrets) != 30 {
		t.Errorf("%d secrets of 30 subscriptions", len(secrets))
	}
	for secret, name := range secrets {
		stored := &corev1.Secret{}
		if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: s.Namespace, Name: v1alpha1.GeneratedSecretName(name)}, stored); err != nil || string(stored.Data["secret"]) != secret {
			t.Errorf("%s: another secret was shown than is stored (%v)", name, err)
		}
	}
}

func patches(t *testing.T, s *stack.Stack) {
	sub := made(t, s, `{"name":"patched","url":"https://a.example","events":["build.*"],"description":"d","retry":{"max_retries":2,"max_delay_seconds":60}}`)
	annotate(t, s, sub, corev1.LastAppliedConfigAnnotation, `{"kept":true}`)
	got := call(t, s, 0, "PATCH", "/api/v1/subscriptions/"+sub.ID, `{"name":"other","description":null,"retry":{"max_retries":null,"initial_delay_seconds":9},"rate_limit":7}`).want(t, 200)
	if got.Name != "other" || got.Description != nil || got.RateLimit != 7 || string(got.Retry) != `{"initial_delay_seconds":9,"max_delay_seconds":60}` {
		t.Errorf("%+v %s", got, got.Retry)
	}
	want := v1alpha1.WebhookSubscriptionSpec{
		URL: "https://a.example", DisplayName: "other", Events: []string{"build.*"}, RateLimitPerMinute: new(int32(7)),
		Retry: &v1alpha1.RetryPolicy{InitialDelaySeconds: new(int32(9)), MaxDelaySeconds: new(int32(60))},
	}
	resource := resourceOf(t, s, sub)
	if diff := cmp.Diff(want, resource.Spec); diff != "" || resource.Annotations[corev1.LastAppliedConfigAnnotation] != `{"kept":true}` {
		t.Errorf("%v (-want +got):\n%s", resource.Annotations, diff)
	}
	// Nothing is done where one part is wrong.
	call(t, s, 0, "PATCH", "/api/v1/subscriptions/"+sub.ID, `{"name":"third","retry":{"initial_delay_seconds":61}}`).want(t, 422)
	if diff := cmp.Diff(want, resourceOf(t, s, sub).Spec); diff != "" {
		t.Errorf("after a refusal (-want +got):\n%s", diff)
	}
}

func pausingKeeps(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("paused", s.Receiver.URL+"/ok/paused"))
	at := "/api/v1/subscriptions/" + sub.ID
	for range 2 { // it may be repeated
		if got := call(t, s, 0, "POST", at+"/pause", "").want(t, 200); got.SubscriptionID != sub.ID || !got.Paused {
			t.Errorf("%+v", got)
		}
	}
	for i := range 3 {
		if got := matched(t, s, "paused", fmt.Sprint("paused-", i)); len(got) != 1 {
			t.Errorf("matched %v", got)
		}
	}
	eventually(t, 30*time.Second, "three wait", func(context.Context) error {
		if got := call(t, s, 0, "POST", at+"/pause", "").want(t, 200); got.Pending != 3 {
			return fmt.Errorf("%d are pending", got.Pending)
		}
		return nil
	})
	if list := s.Receiver.Arrivals("/ok/paused"); len(list) != 0 {
		t.Errorf("%d arrived while it was paused", len(list))
	}
	if got := call(t, s, 0, "POST", at+"/resume", "").want(t, 200); got.Paused {
		t.Errorf("%+v", got)
	}
	waitFor(t, s, "/ok/paused", 3)
}

func toggling(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("toggled", s.Receiver.URL+"/ok/toggled"))
	at := "/api/v1/subscriptions/" + sub.ID
	if got := call(t, s, 0, "POST", at+"/toggle", "").want(t, 200); got.Active || got.SubscriptionID != sub.ID {
		t.Errorf("%+v", got)
	}
	if got := matched(t, s, "toggled", "toggled-1"); got != nil {
		t.Errorf("matched %v", got)
	}
	if got := call(t, s, 0, "POST", at+"/toggle", "").want(t, 200); !got.Active {
		t.Errorf("%+v", got)
	}
	if got := matched(t, s, "toggled", "toggled-2"); len(got) != 1 {
		t.Errorf("matched %v", got)
	}
}

func deleting(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("deleted", s.Receiver.URL+"/ok/deleted"))
	at := "/api/v1/subscriptions/" + sub.ID
	call(t, s, 0, "POST", at+"/pause", "").want(t, 200)
	matched(t, s, "deleted", "deleted-1")
	if got := call(t, s, 0, "DELETE", at, "").want(t, 200); got.Status != "deleted" || got.SubscriptionID != sub.ID {
		t.Errorf("%+v", got)
	}
	if got := matched(t, s, "deleted", "deleted-2"); got != nil {
		t.Errorf("matched %v", got)
	}
	for _, c := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"PATCH", ""}, {"POST", "/pause"}, {"POST", "/resume"}, {"POST", "/toggle"}, {"POST", "/rotate-secret"}} {
		body := ""
		if c[0] == "PATCH" {
			body = "{}"
		}
		call(t, s, 0, c[0], at+c[1], body).want(t, 404)
	}
	if list := s.Receiver.Arrivals("/ok/deleted"); len(list) != 0 {
		t.Errorf("%d arrived", len(list))
	}
}

func rotating(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("rotated", s.Receiver.URL+"/ok/rotated"))
	at := "/api/v1/subscriptions/" + sub.ID
	r := call(t, s, 0, "POST", at+"/rotate-secret", "")
	got := r.want(t, 200)
	if got.NewSecret == "" || got.NewSecret == sub.Secret || got.SubscriptionID != sub.ID || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", r.header, r.text)
	}
	if left := time.Until(*got.PreviousValidUntil); left < 23*time.Hour || left > 24*time.Hour+time.Minute {
		t.Errorf("the old secret is valid for %s", left)
	}
	matched(t, s, "rotated", "rotated-1")
	if list := waitFor(t, s, "/ok/rotated", 1); !list[0].Verify(got.NewSecret) {
		t.Error("the first attempt does not carry the new secret's signature")
	}
	r = call(t, s, 0, "POST", at+"/rotate-secret", "")
	if again := r.want(t, 200); again.NewSecret == got.NewSecret {
		t.Error("the second rotation changed nothing")
	}
	if !strings.Contains(r.text, "replaced within its overlap") {
		t.Errorf("nothing says that the oldest key signs no more: %s", r.text)
	}
}

func ownKeyIsNotRotated(t *testing.T, s *stack.Stack) {
	if err := s.Client.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "my-key", Namespace: s.Namespace}, Type: v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{"secret": "a-key-of-my-own-long-enough"},
	}); err != nil {
		t.Fatal(err)
	}
	sub := made(t, s, `{"name":"own","url":"https://a.example","events":["*"],"signing":{"secret_ref":{"name":"my-key"}}}`)
	if sub.Secret != "" {
		t.Error("the answer shows a secret that it did not make")
	}
	r := call(t, s, 0, "POST", "/api/v1/subscriptions/"+sub.ID+"/rotate-secret", "")
	if r.want(t, 409); !strings.Contains(r.text, "my-key") {
		t.Errorf("%s", r.text)
	}
}

func gitManaged(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("git", "https://a.example"))
	annotate(t, s, sub, "argocd.argoproj.io/tracking-id", "app:webhooks.nexus.io/WebhookSubscription:a/git")
	at := "/api/v1/subscriptions/" + sub.ID
	eventually(t, 10*time.Second, "the dispatcher has seen it", func(context.Context) error {
		if r := call(t, s, 0, "POST", at+"/pause", ""); r.status != 409 {
			return errors.New(r.text)
		}
		return nil
	})
	for _, c := range []struct{ method, path, body string }{
		{"PATCH", "", `{"name":"b"}`}, {"POST", "/pause", ""}, {"POST", "/resume", ""}, {"POST", "/toggle", ""}, {"DELETE", "", ""},
	} {
		r := call(t, s, 0, c.method, at+c.path, c.body)
		if r.want(t, 409); !strings.Contains(r.text, "Argo CD") || !strings.Contains(r.text, "?force=true") {
			t.Errorf("%s", r.text)
		}
		call(t, s, 0, c.method, at+c.path+"?force=true", c.body).want(t, 200)
	}
}

func changesAtOnce(t *testing.T, s *stack.Stack) {
	sub := made(t, s, draft("at-once", "https://a.example"))
	var group sync.WaitGroup
	for i, body := range []string{`{"description":"d"}`, `{"rate_limit":9}`, `{"timeout_seconds":9}`, `{"max_in_flight":9}`, `{"team_filter":"t"}`, `{"severity_filter":["s"]}`} {
		group.Go(func() {
			if r := call(t, s, i%2, "PATCH", "/api/v1/subscriptions/"+sub.ID, body); r.status != 200 {
				t.Errorf("%s: %d %s", body, r.status, r.text)
			}
		})
	}
	group.Wait()
	for i := range 6 { // each sees the one before it, so that an even number changes nothing
		group.Go(func() {
			if r := call(t, s, i%2, "POST", "/api/v1/subscriptions/"+sub.ID+"/toggle", ""); r.status != 200 {
				t.Errorf("toggle: %d %s", r.status, r.text)
			}
		})
	}
	group.Wait()
	spec := resourceOf(t, s, sub).Spec
	if spec.Active == nil || !*spec.Active {
		t.Error("some of six toggles were lost")
	}
	if spec.Description != "d" || *spec.RateLimitPerMinute != 9 || *spec.TimeoutSeconds != 9 || *spec.MaxInFlight != 9 ||
		spec.Filter.Team != "t" || spec.Filter.Severities[0] != "s" || spec.Filter.Project != "at-once" {
		t.Errorf("%+v", spec)
	}
}

// Where the key does not come in time, nobody would know it: nothing stays behind.
func TestNoSubscriptionWithoutItsManager(t *testing.T) {
	s := start(t, 1)
	s.Manager.Kill()
	r := call(t, s, 0, "POST", "/api/v1/subscriptions?namespace="+s.Namespace, draft("orphan", "https://a.example"))
	if r.want(t, 503); r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "was deleted again") {
		t.Errorf("%v %s", r.header, r.text)
	}
	list := &v1alpha1.WebhookSubscriptionList{}
	if err := s.Client.List(t.Context(), list, client.InNamespace(s.Namespace)); err != nil || len(list.Items) != 0 {
		t.Errorf("left behind: %+v %v", list.Items, err)
	}
	if err := s.Manager.Start(); err != nil {
		t.Fatal(err)
	}
	made(t, s, draft("orphan", "https://a.example"))
}

// What a dispatcher began and did not end, the manager ends: no subscription stays without its Secret.
func TestADispatcherThatDiesLeavesNothingHalf(t *testing.T) {
	s := start(t, 1)
	s.Manager.Kill()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		s.Dispatchers[0].URL+"/api/v1/subscriptions?namespace="+s.Namespace, bytes.NewBufferString(draft("half", "https://a.example")))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	ended := make(chan error, 1)
	go func() {
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			err = fmt.Errorf("answer %d", response.StatusCode)
		}
		ended <- err
	}()
	key := client.ObjectKey{Namespace: s.Namespace, Name: "half"}
	sub := &v1alpha1.WebhookSubscription{}
	eventually(t, 10*time.Second, "it is created", func(ctx context.Context) error { return s.Client.Get(ctx, key, sub) })
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), sub) })
	s.Dispatchers[0].Kill()
	if err := <-ended; err == nil {
		t.Error("the client got an answer from a dispatcher that was killed")
	}
	if err := s.Manager.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "its Secret is there", func(ctx context.Context) error {
		return s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: v1alpha1.GeneratedSecretName("half")}, &corev1.Secret{})
	})
}
