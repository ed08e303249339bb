// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

const (
	shiftVariable = "NEXUS_WEBHOOKS_TEST_CLOCK_SHIFT"
	limit         = 120 // requests a minute
)

// shifts of the dispatchers' clocks.
var shifts = [dispatchers]time.Duration{0, 5 * time.Minute, -5 * time.Minute}

// One dispatcher's clock is five minutes ahead and another's five behind. Leases, limits and retries go by Redis' clock,
// so only the timestamps of what these sign are off, which they tell.
func TestClocksThatAreWrong(t *testing.T) {
	program := buildShifted(t)
	r, _ := newKubernetesTrial(t) // past TLS: to a clock that is behind, a young certificate is not valid yet
	r.want.duplicates = func(kills int) int { return kills * (whole + inFlight) }
	// It takes longer than a lease lasts.
	r.create("long", r.s.Receiver.URL+"/slow/5500/l", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.TimeoutSeconds = new(int32(20))
	})
	r.create("limited", r.s.Receiver.URL+"/ok/limited", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.RateLimitPerMinute = new(int32(limit))
	})
	r.routed(r.subs["long"])
	r.routed(r.subs["limited"])
	for i, d := range r.s.Dispatchers {
		d.Kill() // there is no load yet
		d.Become(program, shiftVariable+"="+shifts[i].String())
		r.must(d.Start())
		r.must(d.WaitReady(r.Context()))
	}
	limited := newLoad()
	var killed time.Time
	r.run(func(ctx context.Context, r *trial) int {
		r.every(ctx, *faultTime/20, func(n int) {
			d := r.s.Dispatchers[n%dispatchers]
			r.load.post(r.Context(), d, "long", fmt.Sprint("long-", n))
			for i := range 2 * limit / 20 {
				limited.post(r.Context(), d, "limited", fmt.Sprintf("limited-%d-%d", n, i))
			}
		})
		r.leasesHold()
		r.skewTold()
		for n := range 4 { // so that it has something in hand
			r.load.post(r.Context(), r.s.Dispatchers[1], "long", fmt.Sprint("last-", n))
		}
		killed = time.Now()
		r.s.Dispatchers[1].Kill() // whose leases end by Redis' clock, not by its own
		r.must(r.s.Client.Delete(r.Context(), r.subs["limited"]))
		return 1
	})
	r.limitHeld()
	r.retriesOnTime()
	r.timestampsShifted()
	r.leasesCameBack(killed)
}

// buildShifted is the dispatcher with a clock that a variable shifts. Only Go's own time.Now differs: what the machine
// counts from its start, by which timers go, does not change when somebody sets its clock.
func buildShifted(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	shifted := string(text)
	for _, change := range [][2]string{
		{"import (\n", "import (\n\t\"syscall\"\n"},
		{"\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {", "\tsec, nsec, mono := runtimeNow()\n\tsec += shift\n\tif mono == 0 {"},
	} {
		if strings.Count(shifted, change[0]) != 1 {
			t.Fatalf("%s is not as this test knows it: it does not hold %q once", source, change[0])
		}
		shifted = strings.Replace(shifted, change[0], change[1], 1)
	}
	shifted += "\nvar shift = func() int64 {\n\ttext, _ := syscall.Getenv(\"" + shiftVariable + "\")\n" +
		"\td, _ := ParseDuration(text)\n\treturn int64(d / Second)\n}()\n"
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: filepath.Join(dir, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"time.go": shifted, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "dispatcher")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program,
		"./cmd/dispatcher")
	build.Dir = stack.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// leasesHold checks that no lease ran out while its dispatcher lived.
func (r *trial) leasesHold() {
	r.Helper()
	for _, d := range r.s.Dispatchers {
		metric := r.metrics(d)
		for _, name := range []string{
			"nexus_webhook_lost_leases_total", "nexus_webhook_expired_leases_total", "nexus_webhook_stale_leases_total",
			"nexus_webhook_stale_settlements_total",
		} {
			if n := metric(name); n != 0 {
				r.Errorf("%s: %s is %g", d.Name, name, n)
			}
		}
	}
}

// skewTold checks that whose clock is wrong says so.
func (r *trial) skewTold() {
	r.Helper()
	for i, d := range r.s.Dispatchers {
		skew := r.metrics(d)("nexus_webhook_clock_skew_seconds")
		if math.Abs(skew-shifts[i].Seconds()) > 2 {
			r.Errorf("%s: its clock is %s ahead, and it says %g s", d.Name, shifts[i], skew)
		}
		if told := strings.Contains(d.Log(), "The clocks of this machine and of Redis differ"); told != (shifts[i] != 0) {
			r.Errorf("%s: its clock is %s ahead, and its log tells that: %t", d.Name, shifts[i], told)
		}
	}
}

// limitHeld checks that in a minute exactly as much arrived as may.
func (r *trial) limitHeld() {
	r.Helper()
	list := r.s.Receiver.Arrivals("/ok/limited")
	for first, a := range list {
		inMinute := 0
		for _, b := range list[first:] {
			if b.At.Sub(a.At) < time.Minute {
				inMinute++
			}
		}
		if inMinute > limit {
			r.Fatalf("%d requests in a minute, %d may come", inMinute, limit)
		}
	}
	if len(list) < limit {
		r.Errorf("only %d requests came where %d may come at once", len(list), limit)
	}
}

// retriesOnTime checks that what failed came again after a second, up to a tenth more and what a busy machine takes.
func (r *trial) retriesOnTime() {
	r.Helper()
	failed, late := map[string]time.Time{}, 0
	for _, a := range r.s.Receiver.Arrivals(kinds["flaky"]) {
		if at, again := failed[a.EventID]; again {
			waited := a.At.Sub(at)
			if waited < 990*time.Millisecond {
				r.Errorf("%s: a retry came after %s", a.EventID, waited)
			}
			if waited > 3*time.Second {
				late++
			}
		}
		failed[a.EventID] = a.At
	}
	if late > len(failed)/20 {
		r.Errorf("%d retries of %d events came late", late, len(failed))
	}
}

// timestampsShifted checks that a dispatcher signs with the time that it knows, and nobody with another.
func (r *trial) timestampsShifted() {
	r.Helper()
	count := map[time.Duration]int{}
	for _, a := range r.s.Receiver.Arrivals(kinds["healthy"]) {
		signed, err := time.Parse(time.RFC3339, a.Timestamp)
		if err != nil {
			r.Fatal(err)
		}
		count[signed.Sub(a.At).Round(time.Minute)]++
	}
	for _, shift := range shifts {
		if count[shift] == 0 {
			r.Errorf("no timestamp is %s off", shift)
		}
		delete(count, shift)
	}
	if len(count) > 0 {
		r.Errorf("timestamps are off by %v", count)
	}
}

// leasesCameBack checks that what the dead dispatcher had in hand came from others in time.
func (r *trial) leasesCameBack(killed time.Time) {
	r.Helper()
	seen, again := map[string]bool{}, 0
	for _, a := range r.s.Receiver.Arrivals("/slow/5500/l") {
		if a.At.After(killed.Add(leaseTime + 5*time.Second)) {
			r.Errorf("%s came %s after its dispatcher had died", a.EventID, a.At.Sub(killed))
		}
		if seen[a.EventID] && a.At.Before(killed) {
			r.Errorf("%s came twice although no dispatcher had died", a.EventID)
		}
		if seen[a.EventID] {
			again++
		}
		seen[a.EventID] = true
	}
	if again == 0 {
		r.Error("nothing of the dead dispatcher came again: then it shows nothing of its leases")
	}
}
