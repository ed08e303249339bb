// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nexus.io/webhooks/test/contract"
)

// callsAreAnswered goes through the reference, with ids of what is there in the place of those that it shows.
func (w *world) callsAreAnswered(t *testing.T) {
	to := w.stack.Receiver.URL + "/ok/calls"
	id, secret := w.subscribe(t, to, "build.completed", "")
	calls := &caller{world: w, ids: strings.NewReplacer("{subscription_id}", id, "sub_123", id, "{id}", id)}
	t.Run("create", calls.creates)
	t.Run("subscriptions", func(t *testing.T) { calls.subscriptions(t, id, secret) })
	t.Run("events", calls.events)
	t.Run("deliveries", func(t *testing.T) { calls.deliveries(t) })
	t.Run("testing", func(t *testing.T) { calls.testing(t) })
	t.Run("troubleshooting", calls.troubleshooting)
	t.Run("delete", func(t *testing.T) {
		answer := calls.make(t, "Delete Subscription", "").object(t, http.StatusOK)
		if answer["status"] != "deleted" {
			t.Errorf("%v", answer)
		}
		w.call(t, http.MethodGet, "/api/v1/subscriptions/"+id, "").object(t, http.StatusNotFound)
	})
}

type caller struct {
	*world
	ids *strings.Replacer
}

// make makes the call below a heading.
func (c *caller) make(t *testing.T, heading, body string) reply {
	t.Helper()
	method, target, _ := strings.Cut(strings.TrimSpace(c.block(t, heading, "http")), " ")
	return c.call(t, method, c.ids.Replace(target), body)
}

// field finds the names of the fields in what the document shows of a body, which is no JSON.
var field = regexp.MustCompile(`"(\w+)": (.*)`)

// values are for the fields of a new subscription.
var values = map[string]any{
	"name": "All fields", "url": "https://endpoint.example/x", "events": []string{"build.completed", "release.failed"},
	"project_filter": "PROJECT_KEY", "team_filter": "team-name", "severity_filter": []string{"critical", "high"},
	"description": "optional description", "rate_limit": 60.0,
}

// creates wants every field of the document taken, and none of the required ones left out.
func (c *caller) creates(t *testing.T) {
	all, required := map[string]any{}, []string{}
	for _, f := range field.FindAllStringSubmatch(c.block(t, "Create Subscription", "json"), -1) {
		all[f[1]] = values[f[1]]
		if strings.Contains(f[2], "(required)") || f[1] == "events" {
			required = append(required, f[1])
		}
	}
	made := c.make(t, "Create Subscription", text(t, all)).object(t, http.StatusCreated)
	c.endsWithTest(t, made)
	for name, value := range all {
		if got := made[name]; fmt.Sprint(got) != fmt.Sprint(value) {
			t.Errorf("%s is %v, want %v", name, got, value)
		}
	}
	for _, name := range required {
		less := parsed(t, text(t, all))
		delete(less, name)
		c.make(t, "Create Subscription", text(t, less)).object(t, http.StatusUnprocessableEntity)
	}
}

func (c *caller) subscriptions(t *testing.T, id, secret string) {
	list := c.make(t, "List Subscriptions", "")
	if list.status != http.StatusOK || !strings.Contains(list.text, id) || strings.Contains(list.text, secret) {
		t.Errorf("the list: %d %s", list.status, list.text)
	}
	if got := c.make(t, "Get Subscription", "").object(t, http.StatusOK); got["id"] != id {
		t.Errorf("%v", got)
	}
	changed := c.make(t, "Update Subscription", `{"description":"changed"}`).object(t, http.StatusOK)
	if changed["description"] != "changed" || changed["rate_limit"] != 60.0 {
		t.Errorf("%v", changed)
	}
	for _, active := range []bool{false, true} {
		if got := c.make(t, "Toggle Active Status", "").object(t, http.StatusOK); got["active"] != active {
			t.Errorf("%v, want active to be %t", got, active)
		}
	}
	rotated := c.make(t, "Rotate Secret", "").object(t, http.StatusOK)
	if now, is := rotated["new_secret"].(string); !is || now == secret || len(now) < 32 {
		t.Errorf("the secret was %q and is %q", secret, now)
	}
}

func text(t *testing.T, value any) string {
	t.Helper()
	b, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (c *caller) events(t *testing.T) {
	one := c.block(t, "Publish Event", "json")
	answer := c.make(t, "Publish Event", one).object(t, http.StatusAccepted)
	if answer["event_type"] != "release.completed" || !strings.HasPrefix(answer["event_id"].(string), "evt_") {
		t.Errorf("%v", answer)
	}
	for _, batch := range []string{"[" + one + "," + one + "]", `{"events":[` + one + "," + one + "]}"} {
		answer := c.make(t, "Batch Publish", batch).object(t, http.StatusAccepted)
		if results, _ := answer["results"].([]any); answer["total_events"] != 2.0 || len(results) != 2 {
			t.Errorf("%v", answer)
		}
	}
}

// deliveries needs one that failed and one that waits.
func (c *caller) deliveries(t *testing.T) {
	gone, _ := c.subscribe(t, c.stack.Receiver.URL+"/status/410/calls", "deployment.failed", "")
	failed := c.publish(t, "deployment.failed", someData)
	c.ends(t, failed, "failed")
	of := &caller{world: c.world, ids: strings.NewReplacer("sub_123", gone, "{delivery_id}", failed)}
	var list []map[string]any
	reply := of.make(t, "Get Delivery History", "")
	if err := json.Unmarshal([]byte(reply.text), &list); err != nil || len(list) != 1 || list[0]["id"] != failed {
		t.Errorf("the history: %d %s %v", reply.status, reply.text, err)
	}
	if got := of.make(t, "Get Pending Retries", "").object(t, http.StatusOK); got["count"].(float64) < 1 {
		t.Errorf("%v", got)
	}
	again := of.make(t, "Manual Retry", "").object(t, http.StatusAccepted)
	if again["status"] != "queued" || again["delivery_id"] != failed {
		t.Errorf("%v", again)
	}
	eventually(t, "it was tried again", func() error {
		if n := len(c.stack.Receiver.Arrivals("/status/410/calls")); n != 2 {
			return fmt.Errorf("%d requests came", n)
		}
		return nil
	})
}

func (c *caller) testing(t *testing.T) {
	body := strings.Replace(c.block(t, "Test Webhook URL", "json"), "https://your-app.com", c.stack.Receiver.URL, 1)
	for heading, body := range map[string]string{"Test Webhook URL": body, "Test Subscription": ""} {
		if got := c.make(t, heading, body).object(t, http.StatusOK); got["success"] != true {
			t.Errorf("%s: %v", heading, got)
		}
	}
	list := c.stack.Receiver.Arrivals("/webhook")
	if len(list) != 1 || list[0].EventType != "release.started" || !list[0].Verify("optional-secret") {
		t.Errorf("what came: %+v", list)
	}
}

// inline are calls within the text.
var inline = regexp.MustCompile("`(GET|POST|PATCH|DELETE) (/[^`]*)`")

func (c *caller) troubleshooting(t *testing.T) {
	found := inline.FindAllStringSubmatch(c.text, -1)
	if len(found) < 2 {
		t.Errorf("%d calls in the text", len(found))
	}
	for _, f := range found {
		if got := c.call(t, f[1], c.ids.Replace(f[2]), ""); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", f[0], got.status, got.text)
		}
	}
}

// statistics have every field of the document with its type, once the service has them: until then it describes no such
// call, and answers that there is none.
func (w *world) statistics(t *testing.T) {
	method, target, _ := strings.Cut(strings.TrimSpace(w.block(t, "Get Service Stats", "http")), " ")
	if w.operator != "" { // the numbers are of all namespaces, so a role in one does not suffice
		w.call(t, method, target, "").object(t, http.StatusForbidden)
	}
	shown, answer := w.object(t, "Get Service Stats"), w.callWith(t, w.operator, method, target, "")
	isThis := func(o contract.Operation) bool { return o.Method == method && o.Path == target }
	if !slices.ContainsFunc(w.contract.Operations(), isThis) {
		answer.object(t, http.StatusNotFound)
		t.Logf("%s %s is not there yet", method, target)
		return
	}
	got := answer.object(t, http.StatusOK)
	sameShape(t, "answer", shown, got) // all three types of events_by_type were published by now
	for _, field := range []string{"total_subscriptions", "total_events_processed", "successful_deliveries", "failed_deliveries"} {
		if n, _ := got[field].(float64); n < 1 {
			t.Errorf("%s is %v", field, got[field])
		}
	}
}

// signatureCanBeDebugged runs the command as it is meant, and as it is printed: curl refuses the space in its URL, or
// else it must work.
func (w *world) signatureCanBeDebugged(t *testing.T) {
	printed := w.block(t, "Debug Endpoint", "bash")
	encoded := strings.Replace(printed, "-d 'payload=", "--data-urlencode 'payload=", 1)
	without := strings.Replace(printed, `{"test": true}`, `{"test":true}`, 1)
	if encoded == printed || without == printed {
		t.Fatalf("the command is another one: %s", printed)
	}
	for name, command := range map[string]string{"encoded": encoded, "without the space": without, "as printed": printed} {
		out, err := w.shell(t, command)
		if name == "as printed" && err != nil && strings.Contains(err.Error(), "exit status 3: curl: (3)") {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := parsed(t, out); got["valid"] != false || got["reason"] == "" || got["signature_provided"] != "sha256=abc123" {
			t.Errorf("%s: %v", name, got)
		}
	}
}
