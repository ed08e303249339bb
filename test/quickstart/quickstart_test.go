// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package quickstart_test runs the built quickstart as a person does, and looks at what that person sees.
package quickstart_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const started = "It all runs until Ctrl-C"

func TestQuickstart(t *testing.T) {
	p := build(t)
	t.Run("shows the path, keeps its word after a kill, and stops all of it", func(t *testing.T) {
		// The lease bounds how long what the killed dispatcher had in hand waits.
		r := p.start(t, "WEBHOOK_LEASE_TIME=5")
		r.await(t, "took build.completed", "signature verified", started, "dispatcher.pid)") // the last of the hints
		r.showsTable(t)
		r.tryHints(t)
		r.surviveKill(t)
		r.restartsManager(t)
		r.servesMetrics(t)
		r.stop(t)
	})
	t.Run("runs without a redis-server, and leaves nothing when it is killed", func(t *testing.T) {
		r := p.start(t, "PATH="+t.TempDir())
		r.await(t, "embedded in this process", "signature verified", started)
		pids := r.pids(t)
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for name, pid := range pids {
			eventually(t, name+" is gone", func() bool { return !running(pid) })
		}
	})
	t.Run("keeps a second one out, and ends cleanly in the middle of its start", func(t *testing.T) {
		first := p.start(t)
		first.await(t, "etcd")
		second := exec.Command(first.cmd.Path, first.cmd.Args[1:]...)
		second.Dir = first.directory
		output, err := second.CombinedOutput()
		if err == nil || !strings.Contains(string(output), "another quickstart runs in .quickstart") {
			t.Errorf("a second quickstart ended with %v and wrote: %s", err, output)
		}
		first.stop(t)
	})
}

// tryHints pastes what the quickstart proposes: the first two hints here, the kill in surviveKill.
func (r *run) tryHints(t *testing.T) {
	t.Helper()
	hints := r.hints()
	if len(hints) != 3 {
		t.Fatalf("there are %d hints, want 3: %q", len(hints), hints)
	}
	if described := r.paste(t, hints[0]); !strings.Contains(described, "Delivering") {
		t.Errorf("%s\nprints no Delivering condition: %s", hints[0], described)
	}
	if answer := r.paste(t, hints[1]); !strings.Contains(answer, `"subscriptions_matched":1`) {
		t.Errorf("%s\nanswers %s", hints[1], answer)
	}
	r.await(t, "took deployment.completed")
}

// surviveKill publishes events, kills the dispatcher in the middle, publishes while it is away, and wants all to arrive.
func (r *run) surviveKill(t *testing.T) {
	t.Helper()
	const before, after = 15, 5
	first := r.pids(t)["dispatcher"]
	for i := range before {
		if !r.publish(t, i) {
			t.Fatal("an event was not accepted though the dispatcher runs")
		}
	}
	r.paste(t, r.hints()[2])
	for i := range after {
		eventually(t, "the event is accepted", func() bool { return r.publish(t, before+i) })
	}
	r.await(t, fmt.Sprintf("pid %d ended (signal: killed)", first), "started again, pid")
	if second := r.pids(t)["dispatcher"]; second == first {
		t.Errorf("the pid file still holds %d", first)
	}
	for i := range before + after {
		r.await(t, marker(i))
	}
}

// table is what `kubectl get webhooksubscriptions` prints of the sample: its header, and its row below.
var table = regexp.MustCompile(`NAME +READY +DELIVERING +PENDING +FAILED +LAST SUCCESS +AGE *\n` +
	` +quickstart +True +True `)

func (r *run) showsTable(t *testing.T) {
	t.Helper()
	if told := r.lines.text(); !table.MatchString(told) {
		t.Errorf("the subscription is not in a table %s", table)
	}
}

// restartsManager kills the manager and wants another one in its place.
func (r *run) restartsManager(t *testing.T) {
	t.Helper()
	first := r.pids(t)["manager"]
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	const who = "manager      " // as the story says it
	r.await(t, fmt.Sprintf("%spid %d ended (signal: killed)", who, first), who+"started again, pid")
	if second := r.pids(t)["manager"]; second == first || !running(second) {
		t.Errorf("the pid file holds %d after %d was killed", second, first)
	}
}

func (r *run) servesMetrics(t *testing.T) {
	t.Helper()
	response, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(text, []byte("\nnexus_webhook_")) {
		t.Errorf("the metrics are %s, %v: %s", response.Status, err, text)
	}
}

func marker(i int) string { return fmt.Sprintf(`"build_id":"survives-%d"`, i) }

func (r *run) publish(t *testing.T, i int) bool {
	t.Helper()
	// The id makes the repetition harmless: an answer may be lost with the dispatcher.
	body := fmt.Sprintf(`{"id":"survives-%d","type":"build.failed","source":"test","data":{%s}}`, i, marker(i))
	response, err := http.Post("http://"+r.events+"/api/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusAccepted
}

// stop ends the quickstart with SIGTERM and wants it to end well and leave nothing.
func (r *run) stop(t *testing.T) {
	t.Helper()
	pids := r.pids(t)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	if r.err != nil {
		t.Errorf("the quickstart ended with %v, want nil", r.err)
	}
	for name, pid := range pids {
		if running(pid) {
			t.Errorf("%s (pid %d) still runs", name, pid)
		}
	}
	if left := r.pids(t); len(left) > 0 {
		t.Errorf("pid files are left: %v", left)
	}
}
