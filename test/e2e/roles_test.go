// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

// Who calls: the ServiceAccounts of a test by their roles, and whoever shows no token.
const (
	viewer    = "viewer"
	editor    = "editor"
	publisher = "publisher"
	noRole    = "none"
	noToken   = ""
)

// An endpoint of the API and who may call it.
type guarded struct {
	method, path, query string
	body                string
	may                 []string
	status              int // for those who may
	otherwise           int // for the others with a token; 403
}

var (
	readers = []string{viewer, editor}
	editors = []string{editor}
	known   = []string{viewer, editor, publisher, noRole}
	anybody = append([]string{noToken}, known...)
)

// endpoints are in an order in which each can be called: SUB, DELIVERY and so on stand for what is there. A list
// without a namespace is narrowed, not refused.
var endpoints = []guarded{
	{"GET", "/health", "", "", anybody, 200, 0},
	{"GET", "/healthz", "", "", anybody, 200, 0},
	{"GET", "/readyz", "", "", anybody, 200, 0},
	{"GET", "/openapi.json", "", "", anybody, 200, 0},
	{"GET", "/docs", "", "", anybody, 200, 0},
	{"GET", "/api/v1/event-types", "", "", known, 200, 0},
	{"POST", "/api/v1/verify-signature", "", `{"payload":"p","timestamp":"t","signature":"s","secret":"x"}`, known, 200, 0},
	{"GET", "/api/v1/stats", "", "", nil, 200, 0}, // numbers of all namespaces, and these roles are for one
	{"GET", "/api/v1/subscriptions", "?namespace=default", "", readers, 200, 0},
	{"POST", "/api/v1/subscriptions", "", `{"name":"NAME-two","url":"URL","events":["build.failed"]}`, editors, 201, 0},
	{"GET", "/api/v1/subscriptions/{id}", "SUB", "", readers, 200, 0},
	{"PATCH", "/api/v1/subscriptions/{id}", "SUB", `{"description":"changed"}`, editors, 200, 0},
	{"POST", "/api/v1/subscriptions/{id}/pause", "SUB", "", editors, 200, 0},
	{"POST", "/api/v1/subscriptions/{id}/rotate-secret", "SUB", "", editors, 200, 0},
	{"POST", "/api/v1/subscriptions/{id}/test", "SUB", "", editors, 200, 0},
	{"POST", "/api/v1/test", "", `{"url":"URL"}`, editors, 200, 0},
	{"POST", "/api/v1/events", "", `EVENT_BODY`, []string{publisher}, 202, 0},
	{"POST", "/api/v1/events/batch", "", `[EVENT_BODY]`, []string{publisher}, 202, 0},
	{"POST", "/api/v1/events/explain", "?namespace=default", `EVENT_BODY`, readers, 200, 0},
	{"GET", "/api/v1/events/{id}", "EVENT_ID", "", readers, 200, 404}, // as if it had no delivery
	{"GET", "/api/v1/deliveries", "?namespace=default", "", readers, 200, 0},
	{"GET", "/api/v1/deliveries/pending", "?namespace=default", "", readers, 200, 0},
	{"GET", "/api/v1/deliveries/{id}", "DELIVERY", "", readers, 200, 0},
	{"POST", "/api/v1/deliveries/{id}/retry", "DELIVERY", "", editors, 202, 0},
	{"POST", "/api/v1/deliveries/{id}/cancel", "DELIVERY", "", editors, 200, 0},
	{"POST", "/api/v1/deliveries/retry", "", `{"subscription_id":"SUB"}`, editors, 202, 0},
	{"POST", "/api/v1/deliveries/cancel", "", `{"subscription_id":"SUB"}`, editors, 202, 0},
	{"GET", "/api/v1/operations/{id}", "OPERATION", "", readers, 200, 0},
	{"POST", "/api/v1/subscriptions/{id}/resume", "SUB", "", editors, 200, 0},
	{"POST", "/api/v1/subscriptions/{id}/toggle", "SUB", "", editors, 200, 0},
	{"DELETE", "/api/v1/subscriptions/{id}", "SUB", "", editors, 200, 0},
}

// callers are the tokens by role, and the dispatcher.
type callers struct {
	stack  *stack.Stack
	tokens map[string]string
}

func (c *callers) call(t *testing.T, who, method, target, body string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.stack.Dispatchers[0].URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if token := c.tokens[who]; token != "" {
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
	return reply{response.StatusCode, response.Header, string(text)}
}

// startGuarded runs a dispatcher whose callers have the roles of config/rbac as they ship.
func startGuarded(t *testing.T) *callers {
	t.Helper()
	c := &callers{start(t, 1, "--auth=kubernetes"), map[string]string{}}
	for who, role := range map[string]string{
		viewer: "webhooksubscription_viewer_role", editor: "webhooksubscription_editor_role",
		publisher: "event_publisher_role", noRole: "",
	} {
		account, namespace := "roles-"+who, "default"
		c.tokens[who] = cluster.Token(t.Context(), t, namespace, account, "nexus-webhooks")
		if who == publisher { // events lie in no namespace
			namespace = ""
		}
		if role != "" {
			cluster.Grant(t.Context(), t, role, namespace, kube.Subject("default", account))
		}
	}
	t.Cleanup(func() {
		all := &v1alpha1.WebhookSubscription{}
		if err := c.stack.Client.DeleteAllOf(context.Background(), all, client.InNamespace("default")); err != nil {
			t.Error(err)
		}
	})
	return c
}

// prepare makes a subscription that is paused, a delivery that waits for it, and an operation.
func (c *callers) prepare(t *testing.T) *strings.Replacer {
	t.Helper()
	name, url := "roles-"+strings.ToLower(rand.Text()[:8]), c.stack.Receiver.URL+"/ok/roles"
	sub := c.call(t, editor, "POST", "/api/v1/subscriptions", draft(name, url)).want(t, 201)
	c.call(t, editor, "POST", "/api/v1/subscriptions/"+sub.ID+"/pause", "").want(t, 200)
	var begun struct {
		OperationID string `json:"operation_id"`
	}
	c.publish(t, name, name+"-gone") // for the operation to be about something
	r := c.call(t, editor, "POST", "/api/v1/deliveries/cancel", fmt.Sprintf(`{"subscription_id":%q}`, sub.ID))
	if err := json.Unmarshal([]byte(r.text), &begun); err != nil || begun.OperationID == "" {
		t.Fatalf("%d %s: %v", r.status, r.text, err)
	}
	p := c.publish(t, name, name)
	return strings.NewReplacer("EVENT_BODY", event(name, name+"-more"), "EVENT_ID", p.EventID, "SUB", sub.ID,
		"DELIVERY", p.Deliveries[0].DeliveryID, "OPERATION", begun.OperationID, "NAME", name, "URL", url)
}

func (c *callers) publish(t *testing.T, project, id string) (p published) {
	t.Helper()
	r := c.call(t, publisher, "POST", "/api/v1/events", event(project, id))
	if err := json.Unmarshal([]byte(r.text), &p); err != nil || len(p.Deliveries) != 1 {
		t.Fatalf("%d %s: %v", r.status, r.text, err)
	}
	return p
}

// want is the status for a caller.
func (g *guarded) want(who string) int {
	switch {
	case slices.Contains(g.may, who):
		return g.status
	case who == noToken:
		return http.StatusUnauthorized
	case g.otherwise != 0:
		return g.otherwise
	default:
		return http.StatusForbidden
	}
}

// Each role may do what it is for, and nothing else.
func TestRolesOpenTheEndpointsThatTheyAreFor(t *testing.T) {
	c := startGuarded(t)
	there := c.prepare(t)
	missing := map[string]bool{}
	for _, o := range documented(t).Operations() {
		missing[o.Method+" "+o.Path] = true
	}
	for _, g := range endpoints {
		delete(missing, g.method+" "+g.path)
		t.Run(g.method+" "+g.path, func(t *testing.T) {
			target := g.path + g.query
			if strings.Contains(g.path, "{id}") {
				target = strings.Replace(g.path, "{id}", there.Replace(g.query), 1)
			}
			for _, who := range []string{noToken, noRole, publisher, viewer, editor} { // who may do most comes last
				r := c.call(t, who, g.method, target, there.Replace(g.body))
				if want := g.want(who); r.status != want {
					t.Errorf("role %q: answer %d %.300s, want %d", who, r.status, r.text, want)
				}
			}
		})
	}
	for name := range missing {
		t.Errorf("say in endpoints who may call %s", name)
	}
	t.Run("lists are narrowed", c.listsAreNarrowed)
}

// listsAreNarrowed looks at lists of all namespaces, of which each caller gets what it may see.
func (c *callers) listsAreNarrowed(t *testing.T) {
	there := c.prepare(t)
	for target, shows := range map[string]string{
		"/api/v1/subscriptions": "SUB", "/api/v1/deliveries": "DELIVERY", "/api/v1/deliveries/pending": "DELIVERY",
	} {
		for _, who := range known {
			r := c.call(t, who, "GET", target, "")
			sees := strings.Contains(r.text, there.Replace(shows))
			if r.status != http.StatusOK || sees != slices.Contains(readers, who) {
				t.Errorf("%s for %s: %d, it shows what is there: %t", target, who, r.status, sees)
			}
		}
	}
}
