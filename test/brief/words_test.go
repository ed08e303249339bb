// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/dispatcher/delivery"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/internal/settings"
)

var families = []string{"Release", "Build", "Deployment", "Jira", "Hygiene", "Security", "Analytics", "System"}

func (w *world) eventTypes(t *testing.T) {
	type info struct{ Type, Category, Description string }
	var want []info
	for _, family := range families {
		for _, row := range w.rows(t, family+" Events") {
			want = append(want, info{row[0], family, row[1]})
		}
	}
	var got struct {
		EventTypes []info `json:"event_types"`
	}
	answer := w.call(t, http.MethodGet, "/api/v1/event-types", "")
	if err := json.Unmarshal([]byte(answer.text), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.EventTypes); diff != "" || len(want) != 24 {
		t.Errorf("%d types (-document +API):\n%s", len(want), diff)
	}
	w.block(t, "Overview", "") // a picture
}

// startRetries publishes what fails, and returns the delivery.
func (w *world) startRetries(t *testing.T) string {
	w.subscribe(t, w.stack.Receiver.URL+"/status/500/retries", "analytics.*", "")
	return w.publish(t, "analytics.anomaly_detected", someData)
}

// retriesComeByTheTable looks at the first three attempts, and asks the function for the others.
func (w *world) retriesComeByTheTable(t *testing.T, deliveryID string) {
	var delays []time.Duration
	for _, row := range w.rows(t, "🔄 Automatic Retries") {
		seconds, plain := strings.CutSuffix(row[1], " seconds")
		n, err := strconv.Atoi(seconds)
		switch {
		case row[1] == "Immediate":
			delays = append(delays, 0)
		case plain && err == nil:
			delays = append(delays, time.Duration(n)*time.Second)
		case row[1] != "Up to 1 hour max":
			t.Errorf("what is %q?", row[1])
		}
	}
	byDefault := routing.Retry{MaxRetries: 5, InitialDelay: 5 * time.Second, MaxDelay: time.Hour}
	for failures, want := range append(delays, 80*time.Second) {
		if got := delivery.Backoff(byDefault, failures, 0); got != want {
			t.Errorf("after %d failures the delay is %s, want %s", failures, got, want)
		}
	}
	if got := delivery.Backoff(byDefault, 30, 0); got != time.Hour {
		t.Errorf("the longest delay is %s", got)
	}
	var came []time.Time
	eventually(t, "three attempts", func() error {
		list := w.stack.Receiver.Arrivals("/status/500/retries")
		if len(list) < 3 {
			return fmt.Errorf("%d attempts", len(list))
		}
		for _, a := range list {
			came = append(came, a.At)
			if a.DeliveryID != deliveryID {
				t.Errorf("an attempt has the id %s, the delivery %s", a.DeliveryID, deliveryID)
			}
		}
		return nil
	})
	for i, want := range delays[1:3] {
		if got := came[i+1].Sub(came[i]); got < want-50*time.Millisecond || got > want+want/10+time.Second {
			t.Errorf("attempt %d came after %s, want %s and at most a tenth more", i+2, got, want)
		}
	}
}

// rateLimitIsKept sends a subscription more than its limit, which the document gives as the default.
func (w *world) rateLimitIsKept(t *testing.T) {
	shown := w.object(t, "🎛️ Rate Limiting")
	shown["url"], shown["events"] = w.stack.Receiver.URL+"/ok/rate", []string{"system.*"}
	made := w.call(t, http.MethodPost, "/api/v1/subscriptions", text(t, shown)).object(t, http.StatusCreated)
	w.endsWithTest(t, made)
	limit, _ := shown["rate_limit"].(float64)
	if made["rate_limit"] != limit || limit != 60 {
		t.Errorf("%v", made)
	}
	const more = 5
	for range int(limit) + more {
		w.publish(t, "system.agent_status_changed", someData)
	}
	eventually(t, "what is within the limit arrives, and the rest waits", func() error {
		came := len(w.stack.Receiver.Arrivals("/ok/rate"))
		waits := w.call(t, http.MethodGet, fmt.Sprintf("/api/v1/deliveries/pending?subscription_id=%s", made["id"]), "").
			object(t, http.StatusOK)
		if came > int(limit) {
			t.Fatalf("%d came within a minute", came)
		}
		if came < int(limit) || waits["count"] != float64(more) {
			return fmt.Errorf("%d came, %v wait", came, waits["count"])
		}
		return nil
	})
}

// sample is a line of the exposition format.
type sample struct {
	name   string
	labels map[string]string
}

var sampleLine = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? [0-9.e+-]+$`)

// samples reads what nexus_webhook_ metrics there are in a text.
func samples(text string) (all []sample) {
	for line := range strings.Lines(text) {
		m := sampleLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || !strings.HasPrefix(m[1], "nexus_webhook_") {
			continue
		}
		s := sample{m[1], map[string]string{}}
		for pair := range strings.SplitSeq(m[2], ",") {
			if key, value, has := strings.Cut(pair, "="); has {
				s.labels[key] = strings.Trim(value, `"`)
			}
		}
		all = append(all, s)
	}
	return all
}

// metrics compares names and labels with those that the service really shows by now.
func (w *world) metrics(t *testing.T) {
	metrics, err := w.stack.Dispatchers[0].Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, want := samples(string(metrics.Text)), samples(w.block(t, "Prometheus Metrics", "prometheus"))
	if len(want) != 7 {
		t.Errorf("%d lines of the document were read", len(want))
	}
	for _, s := range want {
		if !slices.ContainsFunc(got, s.isLike) {
			t.Errorf("nothing shows like %v", s)
		}
	}
}

// isLike tells whether both have the same name and labels; of status and le the same values, too.
func (s sample) isLike(o sample) bool {
	if s.name != o.name || len(s.labels) != len(o.labels) {
		return false
	}
	for name, value := range s.labels {
		got, has := o.labels[name]
		switch {
		case !has, name == "status" && got != value:
			return false
		case name == "le":
			a, err := strconv.ParseFloat(value, 64)
			b, err2 := strconv.ParseFloat(got, 64)
			if err != nil || err2 != nil || a != b {
				return false
			}
		}
	}
	return true
}

// settingRow is a line of the generated description: variable and default.
var settingRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `[^`]*` \\| `?([^`|]*?)`? \\|")

// settings compares names and defaults with those of the program.
func (w *world) settings(t *testing.T) {
	var o dispatcher.Options
	s := settings.New("dispatcher", "")
	o.Bind(s)
	var described bytes.Buffer
	s.Markdown(&described)
	got := map[string]string{}
	for _, row := range settingRow.FindAllStringSubmatch(described.String(), -1) {
		got[row[1]] = strings.TrimSpace(row[2])
	}
	rows := w.rows(t, "Environment Variables")
	for _, row := range rows {
		want := row[1]
		if strings.HasSuffix(want, "...") { // which no program can connect to: without one there is no PostgreSQL
			want = ""
		}
		if value, known := got[row[0]]; !known || value != want {
			t.Errorf("%s is %q (known: %t), the document says %q", row[0], value, known, row[1])
		}
	}
	var retries map[string]any
	if err := yaml.Unmarshal([]byte(w.block(t, "🔄 Automatic Retries", "yaml")), &retries); err != nil {
		t.Fatal(err)
	}
	for name, value := range retries {
		if got[name] != fmt.Sprint(value) {
			t.Errorf("%s is %s, the document says %v", name, got[name], value)
		}
	}
	if len(rows) != 7 || len(retries) != 3 {
		t.Errorf("the document has %d variables, and %d for retries", len(rows), len(retries))
	}
}
