// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberest "k8s.io/client-go/rest"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

func TestRBACDecidesWhatAKnownCallerMayDo(t *testing.T) {
	b := newBench(t, nil)
	b.grant("ci", mayPublish)
	b.grant("ops", rbacv1.PolicyRule{APIGroups: []string{"webhooks.nexus.io"}, Verbs: []string{"get", "list"},
		Resources: []string{"webhooksubscriptions/deliveries"}})
	deliveries := rest.Action{Verb: "list", Resource: "webhooksubscriptions", Subresource: "deliveries", Namespace: b.namespace}
	subscriptions := rest.Action{Verb: "list", Resource: "webhooksubscriptions", Namespace: b.namespace}
	cases := map[string]struct {
		account string
		do      rest.Action
		want    int
	}{
		"a publisher publishes":                   {"ci", publish, 200},
		"a publisher looks at deliveries":         {"ci", deliveries, 403},
		"a publisher changes what events are":     {"ci", rest.Action{Verb: "delete", Resource: "events"}, 403},
		"somebody else publishes":                 {"ops", publish, 403},
		"somebody else looks at deliveries":       {"ops", deliveries, 200},
		"who sees deliveries lists subscriptions": {"ops", subscriptions, 403},
		"a name that no object has":               {"ops", rest.Action{Verb: "get", Resource: "webhooksubscriptions", Name: strings.Repeat("a", 254)}, 403},
		"who may do nothing publishes":            {"nobody", publish, 403},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := b.status(b.token(c.account), c.do); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestADenialSaysWhatIsMissing(t *testing.T) {
	b := newBench(t, nil)
	caller, problem := b.Authenticate(request(b.token("ci")))
	if problem != nil {
		t.Fatal(problem)
	}
	user := "system:serviceaccount:" + b.namespace + ":ci"
	cases := map[string]struct {
		do   rest.Action
		want []string
	}{
		"publishing": {publish, []string{"may not create events of webhooks.nexus.io:", "a ClusterRoleBinding", "webhooks-event-publisher-role"}},
		"a look in a namespace": {rest.Action{Verb: "get", Resource: "webhooksubscriptions", Namespace: "team-a"},
			[]string{`get webhooksubscriptions of webhooks.nexus.io in namespace "team-a"`, "a RoleBinding", "viewer-role"}},
		"a change everywhere": {rest.Action{Verb: "create", Resource: "webhooksubscriptions", Subresource: "deliveries"},
			[]string{"create webhooksubscriptions/deliveries of", "in all namespaces", "a ClusterRoleBinding", "editor-role"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := caller.May(t.Context(), c.do)
			for _, want := range append(c.want, user) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q in it", err, want)
				}
			}
			p, namespace := rest.RefusalByID(err), c.do.Namespace
			if namespace != "" && (strings.Contains(p.Detail, namespace) || !strings.Contains(p.Detail, " in the subscription's namespace: ")) {
				t.Errorf("by ID: %s", p.Detail)
			}
		})
	}
}

func TestTokensThatAreNoGoodAreRefused(t *testing.T) {
	b := newBench(t, nil)
	good := b.token("ci")
	parts := strings.Split(good, ".")
	other := cluster.Token(t.Context(), t, b.namespace, "ci", "somebody-else")
	gone := b.token("gone")
	b.must(b.admin.CoreV1().ServiceAccounts(b.namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	past := time.Now().Add(-time.Hour).Unix()
	cases := map[string]struct {
		header []string
		want   int
	}{
		"a good one":                     {[]string{"Bearer " + good}, 200},
		"a scheme in small letters":      {[]string{"bearer " + good}, 200},
		"one that was signed again":      {[]string{"Bearer " + cluster.Resign(t, good, nil)}, 200},
		"one that has expired":           {[]string{"Bearer " + cluster.Resign(t, good, map[string]any{"exp": past})}, 401},
		"one for the API server itself":  {[]string{"Bearer " + cluster.Token(t.Context(), t, b.namespace, "ci")}, 401},
		"one for somebody else":          {[]string{"Bearer " + other}, 401},
		"one of an account that is gone": {[]string{"Bearer " + gone}, 401},
		"one with another signature":     {[]string{"Bearer " + parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2]))}, 401},
		"one of other text":              {[]string{"Bearer nonsense"}, 401},
		"no header":                      {nil, 401},
		"an empty header":                {[]string{""}, 401},
		"no token":                       {[]string{"Bearer "}, 401},
		"another scheme":                 {[]string{"Basic dXNlcjpwYXNz"}, 401},
		"two headers, both good":         {[]string{"Bearer " + good, "Bearer " + good}, 401},
		"characters that no token has":   {[]string{"Bearer a\"b"}, 401},
		"a header that is far too long":  {[]string{"Bearer " + strings.Repeat("a", maxToken+1)}, 401},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := request("")
			r.Header["Authorization"] = c.header
			caller, problem := b.Authenticate(r)
			status := http.StatusOK
			if problem != nil {
				status = problem.Status
			}
			if status != c.want || (caller != nil) != (c.want == 200) {
				t.Errorf("%d, caller %v, want %d", status, caller, c.want)
			}
		})
	}
	if problem := b.notGood(); !strings.Contains(problem.Detail, "--audience="+DefaultAudience) {
		t.Errorf("the answer does not say how to get a good one: %s", problem.Detail)
	}
	for name, token := range map[string]string{"good": good, "gone": gone, "other": other} {
		if strings.Contains(b.log.String(), token) || strings.Contains(b.log.String(), strings.Split(token, ".")[2]) {
			t.Errorf("the %s token is in the log", name)
		}
	}
}

func TestANoIsRememberedBriefly(t *testing.T) {
	b := newBench(t, nil)
	token := b.token("nobody")
	b.expect("at first", token, http.StatusForbidden)
	b.expect("a bad token at first", "nonsense", http.StatusUnauthorized)
	before := b.requests.Load()
	for range 50 {
		b.expect("who may not", token, http.StatusForbidden)
		b.expect("a bad token", "nonsense", http.StatusUnauthorized)
	}
	if n := b.requests.Load() - before; n != 0 {
		t.Errorf("%d reviews of what was just answered", n)
	}
	b.forward(defaultRefused)
	b.expect("who may not, later", token, http.StatusForbidden)
	b.expect("a bad token, later", "nonsense", http.StatusUnauthorized)
	if n := b.requests.Load() - before; n != 2 {
		t.Errorf("%d reviews after the answers' time, want 2", n)
	}
}

func TestARevokedRightEnds(t *testing.T) {
	const fresh = time.Second
	b := newBench(t, func(o *Options) { o.Fresh, o.Refused = fresh, fresh/10 })
	revoke := b.grant("ci", mayPublish)
	token := b.token("ci")
	eventually(t, "the right has begun", func() bool { return b.status(token, publish) == 200 })
	revoke()
	revoked := time.Now()
	// It is used all the time, so that an answer that use keeps alive would never end.
	eventually(t, "the right has ended", func() bool { return b.status(token, publish) == http.StatusForbidden })
	if took := time.Since(revoked); took > fresh+2*time.Second { // some for the API server to hear of it
		t.Errorf("a revoked right went on for %v", took)
	}
	b.grant("ci", mayPublish)
	eventually(t, "the right has begun again", func() bool { return b.status(token, publish) == 200 })
}

func TestATokenOfAnAccountThatIsDeletedEnds(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Fresh = time.Second })
	b.grant("ci", mayPublish)
	token := b.token("ci")
	eventually(t, "the token is good", func() bool { return b.status(token, publish) == 200 })
	b.must(b.admin.CoreV1().ServiceAccounts(b.namespace).Delete(t.Context(), "ci", metav1.DeleteOptions{}))
	// The API server itself remembers tokens for ten seconds.
	eventually(t, "the token is no good", func() bool { return b.status(token, publish) == http.StatusUnauthorized })
}

func TestWhileTheKubernetesAPIIsAway(t *testing.T) {
	b := newBench(t, nil)
	b.grant("ci", mayPublish)
	known, unknown, denied := b.token("ci"), b.token("ci"), b.token("nobody")
	eventually(t, "the token is good", func() bool { return b.status(known, publish) == 200 })
	b.expect("who may not", denied, http.StatusForbidden)
	b.away()
	b.expect("a known caller at once", known, 200)
	b.expect("an unknown caller", unknown, http.StatusServiceUnavailable)
	other := rest.Action{Verb: "list", Resource: "webhooksubscriptions"}
	if got := b.status(known, other); got != http.StatusServiceUnavailable {
		t.Errorf("a known caller with a question that nobody has answered: %d, want 503", got)
	}
	b.forward(time.Minute)
	b.expect("a known caller after a minute", known, 200)
	b.expect("an unknown caller after a minute", unknown, http.StatusServiceUnavailable)
	b.expect("who was denied", denied, http.StatusForbidden)
	if n := b.count("nexus_webhook_access_outage_answers_total"); n < 2 {
		t.Errorf("%v answers counted as old", n)
	}
	b.forward(4*time.Minute + time.Second)
	b.expect("a known caller after the outage's bound", known, http.StatusServiceUnavailable)
	b.expect("who was denied, after it", denied, http.StatusServiceUnavailable)
	if n := strings.Count(b.log.String(), "cannot be asked"); n != 1 {
		t.Errorf("the log tells %d times of it", n)
	}
	b.back()
	b.expect("the known caller again", known, 200)
	b.expect("the unknown caller then", unknown, 200)
}

// A server that takes connections and does not answer must not hold known callers up for each request.
func TestWhileTheKubernetesAPIHangs(t *testing.T) {
	b := newBench(t, nil)
	b.grant("ci", mayPublish)
	token := b.token("ci")
	eventually(t, "the token is good", func() bool { return b.status(token, publish) == 200 })
	hold := make(chan struct{})
	b.hold.Store(&hold)
	defer close(hold)
	b.forward(time.Minute)
	b.expect("the first request, which finds that out", token, 200)
	started := time.Now()
	for range 100 {
		b.expect("a known caller", token, 200)
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("100 requests took %v", took)
	}
}

func TestATokenCountsNoLongerThanItLasts(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Fresh = time.Hour })
	b.grant("ci", mayPublish)
	token := cluster.Resign(t, b.token("ci"), map[string]any{"exp": time.Now().Add(time.Minute).Unix()})
	eventually(t, "the token is good", func() bool { return b.status(token, publish) == 200 })
	b.away()
	b.forward(30 * time.Second)
	b.expect("before its end", token, 200)
	b.forward(31 * time.Second)
	b.expect("after its end", token, http.StatusServiceUnavailable)
}

func TestReviewsOfTheSameTokenAreOne(t *testing.T) {
	const callers = 50
	b := newBench(t, nil)
	b.grant("ci", mayPublish)
	token := b.token("ci")
	hold := make(chan struct{})
	b.hold.Store(&hold)
	before := b.requests.Load()
	var arriving, waiting sync.WaitGroup
	arriving.Add(callers)
	for range callers {
		waiting.Go(func() {
			arriving.Done()
			if _, problem := b.Authenticate(request(token)); problem != nil {
				t.Errorf("%d %s", problem.Status, problem.Detail)
			}
		})
	}
	arriving.Wait()
	eventually(t, "a review has begun", func() bool { return b.requests.Load() > before })
	close(hold)
	waiting.Wait()
	if n := b.requests.Load() - before; n != 1 {
		t.Errorf("%d reviews of one token", n)
	}
}

func TestARequestThatEndsDoesNotEndTheReviewOfOthers(t *testing.T) {
	b := newBench(t, nil)
	token := b.token("ci")
	hold := make(chan struct{})
	b.hold.Store(&hold)
	before := b.requests.Load()
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan *rest.Problem, 1), make(chan *rest.Problem, 1)
	go func() {
		_, problem := b.Authenticate(request(token).WithContext(ctx))
		first <- problem
	}()
	eventually(t, "the review has begun", func() bool { return b.requests.Load() > before })
	cancel()
	if problem := <-first; problem == nil {
		t.Error("the one that ended was let in")
	}
	go func() {
		_, problem := b.Authenticate(request(token))
		second <- problem
	}()
	close(hold)
	if problem := <-second; problem != nil || b.requests.Load()-before != 1 {
		t.Errorf("%v after %d reviews", problem, b.requests.Load()-before)
	}
}

func TestOneCallersQuestionsAreBounded(t *testing.T) {
	const left = 20
	still := time.Now()
	b := newBench(t, func(o *Options) { o.Now = func() time.Time { return still } })
	found, problem := b.Authenticate(request(b.token("curious")))
	if problem != nil {
		t.Fatal(problem)
	}
	found.(*caller).asks.AllowN(still, asksBurst-left)
	before, unknown := b.requests.Load(), 0
	for i := range 10 * left {
		do := rest.Action{Verb: "list", Resource: "webhooksubscriptions", Namespace: fmt.Sprint("n", i)}
		if errors.Is(found.May(t.Context(), do), rest.ErrUnknown) {
			unknown++
		}
	}
	if n := b.requests.Load() - before; n != left || unknown != 9*left {
		t.Errorf("%d reviews, want %d; %d questions without an answer", n, left, unknown)
	}
}

func TestAKnownCallerCostsNoReviewAndHardlyMemory(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Fresh = time.Hour })
	b.grant("ci", mayPublish)
	token := b.token("ci")
	eventually(t, "the token is good", func() bool { return b.status(token, publish) == 200 })
	before, r := b.requests.Load(), request(token)
	allocations := testing.AllocsPerRun(1000, func() {
		caller, problem := b.Authenticate(r)
		if problem != nil || caller.May(r.Context(), publish) != nil {
			t.Error("refused")
		}
	})
	if n := b.requests.Load() - before; n != 0 || allocations > 0 {
		t.Errorf("%d reviews and %v allocations", n, allocations)
	}
}

func BenchmarkKnownCaller(b *testing.B) {
	token := strings.Repeat("a", 1000)
	a, err := New(Options{Config: cluster.Config, Audience: DefaultAudience, Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	known := newCaller(a, authenticationv1.UserInfo{Username: "system:serviceaccount:team-a:ci"})
	now := time.Now().Add(time.Hour)
	a.tokens.yes.put(sha256.Sum256([]byte(token)), &entry[*caller]{value: known, reviewed: now, ends: forever})
	a.decisions.yes.put(decision{known.subject, publish}, &entry[struct{}]{reviewed: now, ends: forever})
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		r := request(token)
		for p.Next() {
			caller, problem := a.Authenticate(r)
			if problem != nil || caller.May(r.Context(), publish) != nil {
				b.Error("refused")
			}
		}
	})
}

// A server that knows nothing of audiences says yes to a token that was made for itself, which anybody could show here.
func TestAYesWithoutTheAudienceIsNone(t *testing.T) {
	for name, audiences := range map[string]string{"no audience": ``, "another": `,"audiences":["https://kubernetes"]`} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = fmt.Fprintf(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview",`+
					`"status":{"authenticated":true,"user":{"username":"ci"}%s}}`, audiences)
			}))
			defer server.Close()
			a, err := New(Options{Config: &kuberest.Config{Host: server.URL}, Audience: DefaultAudience,
				Registerer: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			if _, problem := a.Authenticate(request("token")); problem == nil || problem.Status != http.StatusUnauthorized {
				t.Errorf("%+v, want 401", problem)
			}
		})
	}
}
