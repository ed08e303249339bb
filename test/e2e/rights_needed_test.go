// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/api/v1alpha1"
	ids "nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

// need says what makes a program use a right. What is empty needs no more than its start.
type need struct {
	first func(*scene)        // what happens
	call  func(*scene) string // or what the API is asked, again and again; it returns status and answer
	env   []string            // of the program
	flags []string
	wide  bool // the program serves all namespaces
}

// Clients that stream lists, as those of today do, list nothing themselves as long as they may watch: a server that is
// too old to stream, or has it switched off, makes them list.
var withoutStreaming = []string{"KUBE_FEATURE_WatchListClient=false"}

var (
	lists      = need{env: withoutStreaming}
	starts     = need{}
	subscribes = need{first: func(s *scene) { s.subscribe() }}
	grants     = need{flags: []string{"--require-namespace-grant"}, wide: true}
)

// needs are the rights of config/default, by how errors name them.
var needs = map[string]need{
	"manager: list webhooksubscriptions.webhooks.nexus.io":                          lists,
	"manager: watch webhooksubscriptions.webhooks.nexus.io":                         starts,
	"manager: get webhooksubscriptions.webhooks.nexus.io":                           subscribes,
	"manager: patch webhooksubscriptions/status.webhooks.nexus.io":                  subscribes,
	"manager: list secrets":                                                         lists,
	"manager: watch secrets":                                                        starts,
	"manager: get secrets":                                                          subscribes,
	"manager: create secrets":                                                       subscribes,
	"manager: update secrets":                                                       {first: (*scene).rotate},
	"manager: delete secrets":                                                       {first: (*scene).moveToOwnSecret},
	"manager: list configmaps":                                                      lists,
	"manager: watch configmaps":                                                     starts,
	"manager: get configmaps":                                                       subscribes,
	"manager: create events.events.k8s.io":                                          subscribes,
	"manager: patch events.events.k8s.io":                                           {first: (*scene).loseKeyTwice},
	"manager: create events":                                                        starts,
	"manager: create leases.coordination.k8s.io":                                    starts,
	"manager: get leases.coordination.k8s.io webhooks-manager.webhooks.nexus.io":    starts,
	"manager: update leases.coordination.k8s.io webhooks-manager.webhooks.nexus.io": starts,

	"dispatcher: list webhooksubscriptions.webhooks.nexus.io":                     lists,
	"dispatcher: watch webhooksubscriptions.webhooks.nexus.io":                    starts,
	"dispatcher: get webhooksubscriptions.webhooks.nexus.io":                      calls("POST", "/api/v1/subscriptions/SUB/rotate-secret", ""),
	"dispatcher: create webhooksubscriptions.webhooks.nexus.io":                   calls("POST", "/api/v1/subscriptions?namespace=NAMESPACE", `{"name":"made","url":"https://endpoint.test/","events":["build.completed"]}`),
	"dispatcher: patch webhooksubscriptions.webhooks.nexus.io":                    calls("POST", "/api/v1/subscriptions/SUB/toggle", ""),
	"dispatcher: delete webhooksubscriptions.webhooks.nexus.io":                   calls("DELETE", "/api/v1/subscriptions/SUB", ""),
	"dispatcher: patch webhooksubscriptions/status.webhooks.nexus.io":             subscribes,
	"dispatcher: list secrets":                                                    lists,
	"dispatcher: watch secrets":                                                   starts,
	"dispatcher: list configmaps":                                                 lists,
	"dispatcher: watch configmaps":                                                starts,
	"dispatcher: list namespaces":                                                 {env: withoutStreaming, flags: grants.flags, wide: true},
	"dispatcher: watch namespaces":                                                grants,
	"dispatcher: create tokenreviews.authentication.k8s.io":                       calls("GET", "/api/v1/subscriptions/SUB", ""),
	"dispatcher: create subjectaccessreviews.authorization.k8s.io":                calls("GET", "/api/v1/subscriptions/SUB", ""),
	"dispatcher: create leases.coordination.k8s.io":                               starts,
	"dispatcher: get leases.coordination.k8s.io webhooks-dispatcher-reflector":    starts,
	"dispatcher: update leases.coordination.k8s.io webhooks-dispatcher-reflector": starts,
}

// servedNeeds are the rights of config/namespaced that config/default has not: a Role allows no list of Namespaces, but
// to read the one in which it lies.
var servedNeeds = map[string]need{
	"dispatcher: get namespaces":   {env: withoutStreaming, flags: grants.flags},
	"dispatcher: watch namespaces": {flags: grants.flags},
}

// Without any one of the rights that ship, the API server refuses what the program wants, and the program says so. So
// each is used, none is held twice, and whoever takes one away learns which. With all of them nothing is refused.
func TestEveryRightIsNeeded(t *testing.T) {
	all := sorted(shippedRights(t, "default"))
	t.Run("with all", func(t *testing.T) { needsNoMore(t, all, true) })
	tried := map[string]bool{}
	for _, r := range all {
		tried[r.String()] = true
		t.Run("without "+r.String(), func(t *testing.T) {
			t.Parallel()
			isNeeded(t, all, r, needs)
		})
	}
	for name := range needs {
		if !tried[name] {
			t.Errorf("no role has the right %q: take it out of the table", name)
		}
	}
}

// The same for the Roles of config/namespaced, as far as they are others.
func TestEveryRightInANamespaceIsNeeded(t *testing.T) {
	all := sorted(shippedRights(t, "namespaced"))
	t.Run("with all", func(t *testing.T) { needsNoMore(t, all, false) })
	wide := map[string]bool{}
	for _, r := range shippedRights(t, "default") {
		wide[r.String()] = true
	}
	others := map[string]bool{}
	for _, r := range all {
		if _, other := servedNeeds[r.String()]; !other {
			others[r.String()] = true
			if !wide[r.String()] {
				t.Errorf("%s: config/default has no such right, so say in servedNeeds what it is for", r)
			}
			continue
		}
		t.Run("without "+r.String(), func(t *testing.T) {
			t.Parallel()
			isNeeded(t, all, r, servedNeeds)
		})
	}
	if others["dispatcher: list namespaces"] {
		t.Error("a Role allows to list Namespaces, which it cannot")
	}
}

// isNeeded runs a program without a right.
func isNeeded(t *testing.T, all []right, missing right, by map[string]need) {
	n, known := by[missing.String()]
	if !known {
		t.Fatalf("%s: say in needs what it is for, or take it out of the role", missing)
	}
	s := newScene(t)
	s.give(missing.program, slices.DeleteFunc(of(missing.program, all), func(r right) bool { return r == missing }))
	if s.may(missing) {
		t.Fatalf("%s: another rule allows it too", missing)
	}
	if n.call != nil {
		s.subscribe()
	}
	p := s.start(missing.program, n)
	if n.first != nil {
		n.first(s)
	}
	eventually(t, 30*time.Second, missing.program+" says what it lacks", func(context.Context) error {
		answer := ""
		if n.call != nil {
			answer = n.call(s)
		}
		if said := strings.ReplaceAll(p.Log()+answer, `\`, ""); !strings.Contains(said, missing.refusal()) {
			return fmt.Errorf("nothing says %q, and the API answers %q", missing.refusal(), answer)
		}
		return nil
	})
}

// needsNoMore runs both programs as they are deployed, and has them do all that any right is for.
func needsNoMore(t *testing.T, all []right, wide bool) {
	s := newScene(t)
	var programs []*stack.Process
	for _, program := range []string{"manager", "dispatcher"} {
		s.give(program, of(program, all))
		n := need{wide: wide}
		if program == "dispatcher" {
			n.flags = grants.flags
		}
		programs = append(programs, s.start(program, n))
	}
	for _, first := range []func(*scene){(*scene).rotate, (*scene).moveToOwnSecret, (*scene).loseKeyTwice} {
		first(s)
	}
	for name, n := range needs {
		if n.call == nil {
			continue
		}
		s.subscribe()
		s.ready()
		eventually(t, 30*time.Second, name, func(context.Context) error {
			if answer := n.call(s); !strings.HasPrefix(answer, "2") {
				return errors.New(answer)
			}
			return nil
		})
	}
	s.subscribe()
	eventually(t, 30*time.Second, "the dispatcher writes a status", func(ctx context.Context) error {
		return s.has(ctx, v1alpha1.ConditionDelivering)
	})
	for _, p := range programs {
		log := strings.ReplaceAll(p.Log(), `\`, "")
		for _, sign := range []string{"forbidden", "cannot "} {
			if i := strings.Index(log, sign); i >= 0 {
				t.Errorf("%s is refused something: %.300s", p.Name, log[i:])
			}
		}
	}
}

// calls asks the API about the latest subscription, as somebody who may.
func calls(method, path, body string) need {
	return need{call: func(s *scene) string {
		s.Helper()
		if s.token == "" {
			s.token = cluster.Token(s.Context(), s, s.namespace, "caller", "nexus-webhooks")
			cluster.Grant(s.Context(), s, "webhooksubscription_editor_role", s.namespace, kube.Subject(s.namespace, "caller"))
		}
		return s.call(method, strings.NewReplacer("SUB", ids.SubscriptionID(string(s.sub.UID)), "NAMESPACE", s.namespace).Replace(path), body)
	}}
}

// call asks the API as the owner of the scene's token, and returns status and answer.
func (s *scene) call(method, target, body string) string {
	s.Helper()
	request, err := http.NewRequestWithContext(s.Context(), method, s.dispatcher.URL+target, strings.NewReader(body))
	s.must(err)
	request.Header.Set("Authorization", "Bearer "+s.token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error() // it starts yet
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	s.must(err)
	return fmt.Sprintf("%d %s", response.StatusCode, text)
}
