// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/rogue"
)

const (
	rogueTimeout = time.Second // of an attempt
	// late is what an attempt may take beyond its timeout on a machine that is busy.
	late = time.Second
	// enough is what an endpoint gets rid of on a connection: 64 KiB are read, the rest lies in the sockets' buffers.
	enough = 4 << 20
	// mostConnections of an attempt: the first, by which it turns out what the endpoint speaks, and those that follow.
	mostConnections = 1 + 10
)

// Endpoints that break the rules, in every way that we know, harm neither the others nor the dispatchers.
func TestEndpointsThatMisbehave(t *testing.T) {
	endpoints, bundle := rogue.Start(t)
	t.Setenv("SSL_CERT_FILE", bundle) // what the dispatchers trust
	r := newTrial(t, expectation{flags: []string{
		"--profiling", "--history-max-per-subscription=1000", "--status-writes-per-second=200",
	}})
	for _, e := range endpoints {
		r.create(e.Name, e.URL, func(spec *v1alpha1.WebhookSubscriptionSpec) {
			spec.TimeoutSeconds = new(int32(rogueTimeout.Seconds()))
			spec.Retry.MaxRetries = new(int32(0))
		})
	}
	for _, e := range endpoints {
		r.routed(r.subs[e.Name])
	}
	before, astray := r.levels(), newLoad()
	var begun, ended time.Time
	r.run(func(ctx context.Context, r *trial) int {
		r.pass(2 * calm) // what to compare with
		begun = time.Now()
		visit(ctx, r, endpoints, astray)
		ended = time.Now()
		return 0
	})
	r.unhurt(begun, ended)
	for _, e := range endpoints {
		r.judged(e, astray.accepted[e.Name])
	}
	r.load.client.CloseIdleConnections()
	astray.client.CloseIdleConnections()
	r.asBefore(before, endpoints)
}

// visit publishes an event for each endpoint, every second, and every other for those that hold a place for as long. They
// take turns within it: all at once would measure how a machine takes thirty floods, in which an attempt runs out of time.
func visit(ctx context.Context, r *trial, endpoints []*rogue.Endpoint, l *load) {
	var group sync.WaitGroup
	for i, e := range endpoints {
		group.Go(func() {
			interval := time.Second
			if e.Slow {
				interval = 2 * rogueTimeout
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(interval * time.Duration(i) / time.Duration(len(endpoints))):
			}
			r.every(ctx, interval, func(n int) {
				to := r.s.Dispatchers[n%dispatchers]
				l.post(context.WithoutCancel(ctx), to, e.Name, fmt.Sprintf("%s-%d", e.Name, n))
			})
		})
	}
	group.Wait()
	if len(l.refused) > 0 {
		r.Errorf("events for them were refused: %v", l.refused)
	}
}

// unhurt compares how long events took to the healthy endpoint before a fault and in it.
func (r *trial) unhurt(begun, ended time.Time) {
	r.Helper()
	var before, meanwhile []time.Duration
	for _, a := range r.s.Receiver.Arrivals(kinds["healthy"]) {
		published := r.load.begun[a.EventID]
		switch {
		case published.Before(begun):
			before = append(before, a.At.Sub(published))
		case published.Before(ended):
			meanwhile = append(meanwhile, a.At.Sub(published))
		}
	}
	was, is := percentile99(before), percentile99(meanwhile)
	r.Logf("p99 to the healthy endpoint: %s before, %s meanwhile", was.Round(time.Millisecond), is.Round(time.Millisecond))
	// Generous: a machine that also does other things makes p99 of a second's load vary by some factor.
	if most := 10*was + 500*time.Millisecond; is > most {
		r.Errorf("p99 to the healthy endpoint rose from %s to %s", was, is)
	}
}

func percentile99(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)*99/100]
}

type shownAttempt struct {
	Took   int64   `json:"response_time_ms"`
	Reason *string `json:"reason"`
	Error  *string `json:"error_message"`
}

// judged checks what became of every event for an endpoint.
func (r *trial) judged(e *rogue.Endpoint, events []string) {
	r.Helper()
	var list []struct{ ID, Status string }
	r.read(r.s.Dispatchers[0].URL+"/api/v1/deliveries?limit=1000&subscription_id="+r.subs[e.Name].Status.ID, &list)
	if len(events) == 0 || len(list) != len(events) {
		r.Errorf("%s: %d deliveries of %d events", e.Name, len(list), len(events))
	}
	status := "failed"
	if e.Reason == "" {
		status = "success"
	}
	outOfTime := 0
	for _, d := range list {
		var one struct {
			Attempts []shownAttempt `json:"attempts"`
		}
		r.read(r.s.Dispatchers[0].URL+"/api/v1/deliveries/"+d.ID, &one)
		if d.Status != status || len(one.Attempts) != 1 {
			r.Errorf("%s: %s is %s, want %s, after %d attempts", e.Name, d.ID, d.Status, status, len(one.Attempts))
			continue
		}
		if r.explained(e, one.Attempts[0]) == "timeout" && e.Reason != "timeout" {
			outOfTime++
		}
	}
	if outOfTime > 0 && outOfTime == len(list) && !strings.HasPrefix(e.Name, "http2-goaway-") {
		r.Errorf("%s: all %d attempts ran out of time, want reason %q", e.Name, outOfTime, e.Reason)
	}
	sent, n := e.Sent(), e.Requests()
	if sent > n*enough {
		r.Errorf("%s: %d MiB were taken from %d connections", e.Name, sent>>20, n)
	}
	if attempts := int64(len(list)); n > attempts*mostConnections {
		r.Errorf("%s: %d attempts opened %d connections", e.Name, attempts, n)
	}
}

// explained checks an attempt at e and returns why it failed. On a busy machine some run out of time before the
// endpoint has done its worst: a flood of headers takes long there, and eleven handshakes may take it each time.
func (r *trial) explained(e *rogue.Endpoint, a shownAttempt) (reason string) {
	r.Helper()
	took := time.Duration(a.Took) * time.Millisecond
	if a.Reason != nil {
		reason = *a.Reason
	}
	if reason != e.Reason && (reason != "timeout" || e.Reason == "") || reason != "" && (a.Error == nil || *a.Error == "") {
		r.Errorf("%s: an attempt ended with reason %q, want %q", e.Name, reason, e.Reason)
	}
	if took > rogueTimeout+late || e.Slow && took < rogueTimeout {
		r.Errorf("%s: an attempt took %s", e.Name, took)
	}
	return reason
}

func (r *trial) read(url string, into any) {
	r.Helper()
	if err := json.Unmarshal([]byte(r.get(url)), into); err != nil {
		r.Fatalf("%s: %v", url, err)
	}
}

// asBefore waits until the dispatchers use no more than before, beside connections that they keep for the next request.
func (r *trial) asBefore(before []level, endpoints []*rogue.Endpoint) {
	r.Helper()
	r.eventually("connections to the endpoints are closed", func() error {
		for _, e := range endpoints {
			most := 0
			if strings.HasPrefix(e.Name, "http2-") {
				most = 2 * dispatchers // kept until they are idle for long
			}
			if n := e.Open(); n > most {
				return fmt.Errorf("%d to %s", n, e.Name)
			}
		}
		return nil
	})
	var now []level
	defer func() { r.Logf("dispatchers before: %v; afterwards: %v", before, now) }()
	r.eventually("dispatchers use what they did before", func() error {
		now = r.levels()
		for i, is := range now {
			was := before[i]
			// A minute long connections to Redis are kept that nobody needs, up to the pool's size.
			kept := float64(10 * runtime.GOMAXPROCS(0))
			// Memory goes back to the system only by and by: this is what the load of a minute takes, twice.
			const resident = 80
			if is.goroutines > was.goroutines+20 || is.files > was.files+20+kept || is.heap > was.heap+16 ||
				is.resident > was.resident+resident {
				return fmt.Errorf("dispatcher %d: %s, before %s", i, is, was)
			}
		}
		return nil
	})
}
