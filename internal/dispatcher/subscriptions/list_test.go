// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/routing"
)

func newHandlerWithLog() *handler {
	h := newHandler()
	h.Logger = slog.New(slog.DiscardHandler)
	return h
}

// seen is a cache that holds these, in any order.
type seen struct {
	subs    []*v1alpha1.WebhookSubscription
	unready bool
}

func (s *seen) Ready() bool { return !s.unready }

func (s *seen) Object(id string) *v1alpha1.WebhookSubscription {
	for _, sub := range s.subs {
		if idOf(sub) == id {
			return sub
		}
	}
	return nil
}

func (s *seen) Objects() iter.Seq[*v1alpha1.WebhookSubscription] { return slices.Values(s.subs) }
func (s *seen) Secret(string, string) *corev1.Secret             { return nil }
func (s *seen) Table() *routing.Table                            { return routing.Empty() }

var birth = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func sub(namespace, name string, age int, events ...string) *v1alpha1.WebhookSubscription {
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + name),
			CreationTimestamp: metav1.NewTime(birth.Add(time.Duration(age) * time.Second)),
		},
		Spec: v1alpha1.WebhookSubscriptionSpec{URL: "https://a.example", Events: events},
	}
}

// grants lets a caller do what it names: verb and namespace ("" for all).
type grants map[string]bool

func (g grants) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return g, nil }

func (g grants) May(_ context.Context, do rest.Action) error {
	if do.Resource != "webhooksubscriptions" || do.Subresource != "" {
		return fmt.Errorf("asked for %+v", do)
	}
	if known, asked := g[do.Verb+" "+do.Namespace]; asked && !known {
		return rest.ErrUnknown
	} else if !known {
		return &rest.Denied{Reason: "no " + do.Verb + " in namespace " + do.Namespace, Unnamed: "no " + do.Verb}
	}
	return nil
}

// asks refuses everything and keeps what it was.
type asks struct{ actions []rest.Action }

func (a *asks) Authenticate(*http.Request) (rest.Caller, *rest.Problem) { return a, nil }

func (a *asks) May(_ context.Context, do rest.Action) error {
	a.actions = append(a.actions, do)
	return &rest.Denied{Reason: "no"}
}

// ask sends a request to a handler without a cluster.
func ask(cache *seen, who rest.Authenticator, method, target, body string) *httptest.ResponseRecorder {
	h := newHandlerWithLog()
	h.Cache = cache
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	rest.Handler(h.routes(), rest.HandlerOptions{Authenticator: who}).ServeHTTP(w, r)
	return w
}

func names(t *testing.T, w *httptest.ResponseRecorder) (found []string) {
	t.Helper()
	var list []Subscription
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, s := range list {
		found = append(found, s.ResourceName)
	}
	return found
}

func TestAListIsFilteredAndInOrder(t *testing.T) {
	idle := sub("b", "idle", 3, "*")
	idle.Spec.Active = new(false)
	cache := &seen{subs: []*v1alpha1.WebhookSubscription{
		sub("b", "third", 4, "release.*"), idle, sub("a", "first", 1, "build.failed"), sub("a", "second", 2, "build.*", "ticket.created"),
	}}
	for query, want := range map[string][]string{
		"":                         {"first", "second", "idle", "third"},
		"active_only=true":         {"first", "second", "third"},
		"active_only=false":        {"first", "second", "idle", "third"},
		"namespace=a":              {"first", "second"},
		"namespace=c":              nil,
		"event_type=build.failed":  {"first", "second", "idle"},
		"event_type=build.started": {"second", "idle"},
		"event_type=build.*":       {"second", "idle"},
		"event_type=*":             {"idle"},
		"event_type=ticket.created&active_only=true&namespace=a": {"second"},
		"limit=2": {"first", "second"},
	} {
		if diff := cmp.Diff(want, names(t, ask(cache, rest.Anybody{}, "GET", path+"?"+query, ""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	if w := ask(&seen{}, rest.Anybody{}, "GET", path, ""); w.Body.String() != "[]" {
		t.Errorf("without any: %s", w.Body)
	}
}

// follow reads a list page by page, and calls between after each.
func follow(t *testing.T, cache *seen, target string, between func(page int)) (found []string) {
	t.Helper()
	for page := 0; ; page++ {
		w := ask(cache, rest.Anybody{}, "GET", target, "")
		found = append(found, names(t, w)...)
		link := w.Header().Get("Link")
		if link == "" {
			return found
		}
		next, ok := strings.CutSuffix(link, `>; rel="next"`)
		if !ok || len(names(t, w)) == 0 {
			t.Fatalf("Link %q", link)
		}
		target = next[1:]
		between(page)
	}
}

func TestPagesSurviveChanges(t *testing.T) {
	cache := &seen{}
	var want []string
	for i := range 25 {
		s := sub("a", fmt.Sprintf("s%02d", i), i/10, "*") // many of the same second
		cache.subs = append(cache.subs, s)
	}
	slices.SortFunc(cache.subs, func(a, b *v1alpha1.WebhookSubscription) int { return placeOf(a).compare(placeOf(b)) })
	for _, s := range cache.subs {
		want = append(want, s.Name)
	}
	last := want[len(want)-1]
	got := follow(t, cache, path+"?limit=4&active_only=true", func(page int) {
		if page == 0 { // what was shown last goes, and so does one that is still to come; another comes
			cache.subs = slices.DeleteFunc(slices.Clone(cache.subs), func(s *v1alpha1.WebhookSubscription) bool {
				return s.Name == want[3] || s.Name == last
			})
			cache.subs = append(cache.subs, sub("a", "late", 99, "*"))
			slices.Reverse(cache.subs)
		}
	})
	if diff := cmp.Diff(append(want[:len(want)-1:len(want)-1], "late"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestACallerSeesOnlyWhatItMay(t *testing.T) {
	a, b := sub("a", "one", 1, "*"), sub("b", "two", 2, "*")
	cache := &seen{subs: []*v1alpha1.WebhookSubscription{a, b}}
	for name, c := range map[string]struct {
		who    grants
		query  string
		status int
		want   []string
	}{
		"all":                  {grants{"list ": true}, "", 200, []string{"one", "two"}},
		"one namespace":        {grants{"list b": true}, "", 200, []string{"two"}},
		"nothing":              {grants{}, "", 200, nil},
		"that namespace":       {grants{"list b": true}, "?namespace=b", 200, []string{"two"}},
		"another namespace":    {grants{"list b": true}, "?namespace=a", 403, nil},
		"nobody can tell":      {grants{"list ": false}, "", 503, nil},
		"nobody can tell of a": {grants{"list b": true, "list a": false}, "", 503, nil},
		"get is not list":      {grants{"get ": true, "get a": true}, "", 200, nil},
	} {
		w := ask(cache, c.who, "GET", path+c.query, "")
		if w.Code != c.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		} else if c.status == 200 {
			if diff := cmp.Diff(c.want, names(t, w)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
	id := idOf(a)
	for _, c := range []struct{ method, target, body, verb string }{
		{"GET", path + "/" + id, "", "get"},
		{"PATCH", path + "/" + id, "{}", "patch"},
		{"DELETE", path + "/" + id, "", "delete"},
		{"POST", path + "/" + id + "/pause", "", "patch"},
		{"POST", path + "/" + id + "/resume", "", "patch"},
		{"POST", path + "/" + id + "/toggle", "", "patch"},
		{"POST", path + "/" + id + "/rotate-secret", "", "patch"},
		{"POST", path + "?namespace=a", "{}", "create"},
	} {
		others := grants{}
		for _, verb := range []string{"get", "list", "create", "update", "patch", "delete"} {
			others[verb+" b"] = true
			if verb != c.verb {
				others[verb+" a"] = true
			}
		}
		w := ask(cache, others, c.method, c.target, c.body)
		if w.Code != 403 || !strings.Contains(w.Body.String(), "no "+c.verb) {
			t.Errorf("%s %s without %s: %d %s", c.method, c.target, c.verb, w.Code, w.Body)
		}
		if named := strings.Contains(c.target, "namespace="); strings.Contains(w.Body.String(), "in namespace a") != named {
			t.Errorf("%s %s: whoever did not name the namespace is told of it, or the other way round: %s", c.method, c.target, w.Body)
		}
		asked := &asks{}
		want := rest.Action{Verb: c.verb, Resource: "webhooksubscriptions", Namespace: "a"}
		if c.verb != "create" {
			want.Name = "one" // so that roles with resourceNames count
		}
		ask(cache, asked, c.method, c.target, c.body)
		if diff := cmp.Diff([]rest.Action{want}, asked.actions); diff != "" {
			t.Errorf("%s %s asks (-want +got):\n%s", c.method, c.target, diff)
		}
	}
}

func TestWhatIsNotLoadedIsNotMissing(t *testing.T) {
	cache := &seen{unready: true}
	for _, target := range []string{path, path + "/sub_000000000000"} {
		if w := ask(cache, rest.Anybody{}, "GET", target, ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestHealthIsOneWord(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status}
	}
	ready, notReady := condition("Ready", "True"), condition("Ready", "False")
	for name, c := range map[string]struct {
		active, paused *bool
		conditions     []metav1.Condition
		want           string
	}{
		"new":                    {nil, nil, nil, "unknown"},
		"nothing delivered yet":  {nil, nil, []metav1.Condition{ready, condition("Delivering", "Unknown")}, "unknown"},
		"delivering":             {nil, nil, []metav1.Condition{ready, condition("Delivering", "True")}, "healthy"},
		"failing":                {nil, nil, []metav1.Condition{ready, condition("Delivering", "False")}, "failing"},
		"without its Secret":     {nil, nil, []metav1.Condition{notReady, condition("Delivering", "False")}, "not_ready"},
		"paused":                 {nil, new(true), []metav1.Condition{ready, condition("Delivering", "True")}, "paused"},
		"paused and not ready":   {nil, new(true), []metav1.Condition{notReady}, "not_ready"},
		"inactive and not ready": {new(false), new(true), []metav1.Condition{notReady}, "inactive"},
	} {
		s := sub("a", "b", 1, "*")
		s.Spec.Active, s.Spec.Paused, s.Status.Conditions = c.active, c.paused, c.conditions
		if got := health(s); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestASubscriptionShowsWhatTheDocumentSays(t *testing.T) {
	s := sub("a", "b", 0, "*")
	s.Spec.DisplayName = "B"
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Time: &metav1.Time{Time: birth.Add(time.Hour)}}}
	s.Status.Delivery = &v1alpha1.DeliveryStatus{Successful: 5, Failed: 2, Pending: 3, ConsecutiveFailures: 1, LastAttemptTime: &metav1.Time{Time: birth}}
	w := ask(&seen{subs: []*v1alpha1.WebhookSubscription{s}}, rest.Anybody{}, "GET", path+"/"+idOf(s), "")
	want := `{"id":"` + idOf(s) + `","name":"B","namespace":"a","resource_name":"b","url":"https://a.example","events":["*"],` +
		`"project_filter":null,"team_filter":null,"severity_filter":null,"description":null,"rate_limit":60,"active":true,` +
		`"paused":false,"created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-02T04:04:05Z","total_deliveries":10,` +
		`"successful_deliveries":5,"failed_deliveries":2,"pending_deliveries":3,"last_delivery_at":"2026-01-02T03:04:05Z",` +
		`"last_delivery_status":"failed","health":"unknown"}`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
