// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// someData is of an event that no example needs more of.
var someData = json.RawMessage(`{"build_id":"build-12345"}`)

// quickStart subscribes by the first command, and receives with the function for Python.
func (w *world) quickStart(t *testing.T) {
	c := w.consume(t, w.file(t, "HMAC Signature Verification", "python"), "verify")
	const heading = "1. Create a Subscription"
	command := strings.Replace(w.block(t, heading, "bash"), "https://your-app.com", c.url, 1)
	text, err := w.shell(t, command)
	if err != nil {
		t.Fatal(err)
	}
	made := parsed(t, text)
	w.endsWithTest(t, made)
	shown := w.object(t, heading)
	sameShape(t, "answer", shown, made)
	for _, field := range []string{"name", "events", "active"} {
		if diff := cmp.Diff(shown[field], made[field]); diff != "" {
			t.Errorf("%s (-document +answer):\n%s", field, diff)
		}
	}
	if _, err := time.Parse(time.RFC3339, made["created_at"].(string)); err != nil {
		t.Error(err)
	}
	id := made["id"].(string)
	c.trust(t, made["secret"].(string))

	text, err = w.shell(t, strings.Replace(w.block(t, "2. Test Your Endpoint", "bash"), "sub_abc123", id, 1))
	if err != nil || parsed(t, text)["success"] != true {
		t.Errorf("the test of the endpoint: %s %v", text, err)
	}
	if v := c.next(t); v.Status != http.StatusOK {
		t.Errorf("the consumer answered it %d", v.Status)
	}
	w.ends(t, w.publish(t, "build.completed", someData), "success")
	c.acceptsOnlyWhatIsSigned(t, c.next(t), "/webhooks/nexus")
	again := w.call(t, http.MethodGet, "/api/v1/subscriptions/"+id, "").object(t, http.StatusOK)
	if secret, shows := again["secret"]; shows {
		t.Errorf("the secret can be read again: %v", secret)
	}
}

func (w *world) functionsVerify(t *testing.T) {
	for _, language := range []string{"python", "javascript"} {
		t.Run(language, func(t *testing.T) {
			c := w.consume(t, w.file(t, "HMAC Signature Verification", language), "verify")
			_, secret := w.subscribe(t, c.url+"/any", "hygiene.*", "")
			c.trust(t, secret)
			w.ends(t, w.publish(t, "hygiene.score_changed", json.RawMessage(`{"score":9.50,"note":"ü \u00fc <&>"}`)), "success")
			c.acceptsOnlyWhatIsSigned(t, c.next(t), "/any")
		})
	}
}

// handlerReceives brings the secret that the handler's text has, as a user may who has a Secret.
func (w *world) handlerReceives(t *testing.T) {
	w.ownKey(t, "handler", "your-webhook-secret")
	c := w.consume(t, w.file(t, "3. Handle Webhooks", "python"), "application")
	const path = "/webhooks/nexus"
	w.subscribe(t, c.url+path, "*", `,"signing":{"secret_ref":{"name":"handler"}}`)
	for eventType, called := range map[string]string{
		"build.completed": "handle_build_completed", "deployment.completed": "handle_deployment_completed", "build.started": "",
	} {
		w.ends(t, w.publish(t, eventType, someData), "success")
		v := c.next(t)
		var got string
		for _, note := range v.Notes {
			got = note.Called
			if diff := cmp.Diff(map[string]any{"build_id": "build-12345"}, note.With); diff != "" {
				t.Errorf("%s is called with (-want +got):\n%s", note.Called, diff)
			}
		}
		if got != called || fmt.Sprint(v.Result) != "map[status:received]" {
			t.Errorf("%s: it called %q and answered %v", eventType, got, v.Result)
		}
		c.acceptsOnlyWhatIsSigned(t, v, path)
	}
}

// The first answer to the delivery gets lost, so it comes again with the same id.
func (w *world) idempotentHandlerHandlesOnce(t *testing.T) {
	c := w.consume(t, w.file(t, "Example: Idempotent Handler", "python"), "idempotent", "REDIS_ADDRESS="+w.stack.Redis.Address)
	w.subscribe(t, c.url, "ticket.*", `,"retry":{"initial_delay_seconds":1}`)
	delivery := w.publish(t, "ticket.updated", someData)
	first, second := c.next(t), c.next(t)
	if fmt.Sprint(first.Result, second.Result) != "map[status:processed] map[status:already_processed]" {
		t.Errorf("it answered %v, then %v", first.Result, second.Result)
	}
	if len(first.Notes) != 1 || len(second.Notes) != 0 || second.Headers["X-Nexus-Delivery"] != delivery {
		t.Errorf("it came as %+v, then %+v", first, second)
	}
	w.ends(t, delivery, "success")
}

// Each integration gets the event whose data the document shows.
func (w *world) integrationsAreCalled(t *testing.T) {
	for _, c := range []struct {
		heading, function, eventType string
		called                       string
		want                         []string
	}{
		{
			"Slack Notification", "handle_release_completed", "release.completed", "https://hooks.slack.com/services/...",
			[]string{"Release 2.0.0 deployed!", "Tickets: 45", "Duration: 3600s"},
		},
		{
			"PagerDuty Alert", "handle_vulnerability_detected", "security.vulnerability_detected",
			"https://events.pagerduty.com/v2/enqueue", []string{"Critical vulnerability: CVE-2025-1234", "Upgrade immediately"},
		},
		{
			"Datadog Event", "handle_build_failed", "build.failed", "create_event",
			[]string{"Build Failed: nexus-main", "Test failures in module X", "branch:feature/new-feature"},
		},
	} {
		t.Run(c.heading, func(t *testing.T) {
			consumer := w.consume(t, w.file(t, c.heading, "python"), c.function)
			w.subscribe(t, consumer.url, c.eventType, "")
			w.ends(t, w.publish(t, c.eventType, w.example(t, c.eventType)), "success")
			v := consumer.next(t)
			if len(v.Notes) != 1 || v.Notes[0].Called != c.called {
				t.Fatalf("it called %+v, want %s", v.Notes, c.called)
			}
			for _, want := range c.want {
				if got := fmt.Sprint(v.Notes[0].With); !strings.Contains(got, want) {
					t.Errorf("it sends %s, which lacks %q", got, want)
				}
			}
		})
	}
}

// shapes are what stands behind the examples of header values.
var shapes = map[string]*regexp.Regexp{
	"X-Nexus-Signature-256": regexp.MustCompile(`^sha256=[0-9a-f]{64}$`),
	"X-Nexus-Timestamp":     regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`),
	"X-Nexus-Delivery":      regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`),
	"X-Nexus-Event":         regexp.MustCompile(`^release\.completed$`),
}

func (w *world) deliveryIsAsShown(t *testing.T) {
	shown := w.object(t, "Webhook Payload Format")
	w.subscribe(t, w.stack.Receiver.URL+"/ok/shown", "release.*", "")
	delete(shown, "id")
	delete(shown, "timestamp")
	shown["data"] = map[string]any{"release_id": "rel-123"}
	body, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	w.call(t, http.MethodPost, "/api/v1/events", string(body)).object(t, http.StatusAccepted)
	var came []string
	eventually(t, "it arrives", func() error {
		for _, a := range w.stack.Receiver.Arrivals("/ok/shown") {
			came = append(came, a.Body)
			w.headersAreAsShown(t, a.Header)
			return nil
		}
		return fmt.Errorf("nothing came")
	})
	got := parsed(t, came[0])
	if at, err := time.Parse(time.RFC3339, got["timestamp"].(string)); err != nil || at.Location() != time.UTC {
		t.Errorf("timestamp %v: %v", got["timestamp"], err)
	}
	if !strings.HasPrefix(got["id"].(string), "evt_") {
		t.Errorf("id %v", got["id"])
	}
	delete(got, "id")
	delete(got, "timestamp")
	if diff := cmp.Diff(shown, got); diff != "" {
		t.Errorf("payload (-document +sent):\n%s", diff)
	}
}

func (w *world) headersAreAsShown(t *testing.T, header http.Header) {
	t.Helper()
	var named []string
	for line := range strings.Lines(w.block(t, "HMAC Signature Verification", "")) {
		name, _, _ := strings.Cut(line, ":")
		named = append(named, name)
		if value := header.Get(name); shapes[name] == nil || !shapes[name].MatchString(value) {
			t.Errorf("%s: %q", name, value)
		}
	}
	slices.Sort(named)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(shapes)), named); diff != "" {
		t.Errorf("the document's headers (-looked at +named):\n%s", diff)
	}
}
