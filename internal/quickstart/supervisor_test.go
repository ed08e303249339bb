// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 20 * time.Second

// transcript is a story's output that a test can wait for.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// script is a process that runs a shell script and is ready once it has written the file "ready" into its directory.
func script(t *testing.T, text string) *process {
	t.Helper()
	directory := t.TempDir()
	ready := filepath.Join(directory, "ready")
	return &process{
		name: "program", path: "/bin/sh", arguments: []string{"-c", text}, environment: []string{"READY=" + ready},
		log: filepath.Join(directory, "log"), pid: filepath.Join(directory, "pid"), grace: patience,
		ready: func(context.Context) error {
			_, err := os.Stat(ready)
			return err
		},
	}
}

func pidOf(t *testing.T, p *process) int {
	t.Helper()
	text, err := os.ReadFile(p.pid)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func runs(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestAProgramThatDiesIsStartedAgain(t *testing.T) {
	var told transcript
	s := &supervisor{story: newStory(&told)}
	p := script(t, `echo >"$READY"; exec sleep 1000`)
	if err := s.start(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	first := pidOf(t, p)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program has another pid", func() bool { return pidOf(t, p) != first })
	second := pidOf(t, p)
	eventually(t, "the restart is told", func() bool {
		return strings.Contains(told.String(), "pid "+strconv.Itoa(first)+" ended (signal: killed)") &&
			strings.Contains(told.String(), "started again, pid "+strconv.Itoa(second))
	})
	s.stop()
	if runs(first) || runs(second) {
		t.Error("the program still runs after stop")
	}
	if _, err := os.Stat(p.pid); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there (%v)", err)
	}
}

func TestAProgramThatEndsBeforeItIsReadyIsAnErrorThatQuotesItsLog(t *testing.T) {
	s := &supervisor{story: newStory(&transcript{})}
	p := script(t, `echo $$; echo "the disk is on fire" >&2; exit 3`)
	err := s.start(t.Context(), p)
	for _, want := range []string{"program ended before it was ready", "exit status 3", "the disk is on fire", p.log} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("start() = %v, want an error with %q", err, want)
		}
	}
	wantNothingLeft(t, p)
}

func TestAProgramThatEndsWhileAnotherAnswersItsProbesWasNeverReady(t *testing.T) {
	s := &supervisor{story: newStory(&transcript{})}
	p := script(t, `echo $$; sleep 0.1; echo "bind: address already in use" >&2; exit 1`)
	p.ready = func(context.Context) error { return nil }
	err := s.start(t.Context(), p)
	for _, want := range []string{"program ended before it was ready", "bind: address already in use"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("start() = %v, want an error with %q", err, want)
		}
	}
	s.stop()
	wantNothingLeft(t, p)
}

func TestARestartTellsWhatTheProgramSaidLast(t *testing.T) {
	var told transcript
	s := &supervisor{story: newStory(&told)}
	p := script(t, `echo >"$READY"; sleep 1; echo "all is well"; echo "the disk is full" >&2; exit 1`)
	if err := s.start(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the restart is told with its reason", func() bool {
		return strings.Contains(told.String(), "starting it again in 500ms; its log ends with: the disk is full\n")
	})
	s.stop()
	if strings.Contains(told.String(), "all is well") {
		t.Errorf("told more than the last line: %s", told.String())
	}
}

// wantNothingLeft is for a script whose first line of output is its pid.
func wantNothingLeft(t *testing.T, p *process) {
	t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(log), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	if runs(pid) {
		t.Error("the program still runs")
	}
	if _, err := os.Stat(p.pid); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there (%v)", err)
	}
}

func TestTheEndDuringAStartLeavesNothingRunning(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &supervisor{story: newStory(&transcript{})}
	p := script(t, `echo $$; exec sleep 1000`)
	p.ready = func(context.Context) error {
		if log, err := os.ReadFile(p.log); err != nil || len(log) == 0 {
			return errors.New("it has not said its pid yet")
		}
		cancel()
		return errors.New("it is never ready")
	}
	if err := s.start(ctx, p); err == nil {
		t.Fatal("start() = nil for a program that never was ready")
	}
	wantNothingLeft(t, p)
}

func TestAProgramThatIgnoresSIGTERMIsKilled(t *testing.T) {
	s := &supervisor{story: newStory(&transcript{})}
	p := script(t, `trap '' TERM; echo >"$READY"; while :; do sleep 0.1; done`)
	p.grace = 100 * time.Millisecond
	if err := s.start(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	pid := pidOf(t, p)
	s.stop()
	if runs(pid) {
		t.Error("the program still runs after stop")
	}
}

func TestStopEndsTheLastOneFirst(t *testing.T) {
	s := &supervisor{story: newStory(&transcript{})}
	order := filepath.Join(t.TempDir(), "order")
	for _, name := range []string{"first", "second"} {
		p := script(t, `trap 'echo `+name+` >>'`+order+`'; exit' TERM; echo >"$READY"; while :; do sleep 0.05; done`)
		if err := s.start(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	got, err := os.ReadFile(order)
	if err != nil || string(got) != "second\nfirst\n" {
		t.Errorf("order of ends = %q (%v), want second, first", got, err)
	}
}
