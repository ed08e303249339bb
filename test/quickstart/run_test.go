// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 60 * time.Second

// programs are the built ones of this repository.
type programs struct{ root, bin, assets string }

func build(t *testing.T) programs {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: set it to a directory that holds kube-apiserver, etcd and kubectl " +
			"(`make test` builds them and sets it)")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "./cmd/...")
	cmd.Dir = root
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, output)
	}
	return programs{root: root, bin: bin, assets: assets}
}

// run is a quickstart that runs in a directory of its own, as a person would run it in the repository.
type run struct {
	cmd       *exec.Cmd
	directory string
	events    string // the address of the event API
	metrics   string // that of the metrics
	lines     *lines
	ended     chan struct{}
	err       error
}

// start starts a quickstart; whatever happens to the test, it is killed at its end.
func (p programs) start(t *testing.T, environment ...string) *run {
	t.Helper()
	r := &run{directory: t.TempDir(), events: free(t), metrics: free(t), lines: newLines(), ended: make(chan struct{})}
	r.cmd = exec.Command(filepath.Join(p.bin, "quickstart"),
		"--assets="+p.assets, "--bin="+p.bin, "--config="+filepath.Join(p.root, "config"),
		"--event-address="+r.events, "--metrics-address="+r.metrics)
	r.cmd.Dir = r.directory
	r.cmd.Env = append(os.Environ(), append([]string{"REDIS_URL="}, environment...)...)
	output, write := io.Pipe()
	r.cmd.Stdout, r.cmd.Stderr = write, write
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the test itself be killed
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go r.lines.read(output)
	go func() {
		r.err = r.cmd.Wait()
		_ = write.Close()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it has ended unless the test failed
		<-r.ended
		if t.Failed() {
			t.Logf("the quickstart wrote:\n%s", r.lines.text())
			r.logTails(t)
		}
	})
	return r
}

func (r *run) data(name string) string { return filepath.Join(r.directory, ".quickstart", name) }

func (r *run) logTails(t *testing.T) {
	t.Helper()
	for _, name := range []string{"manager.log", "dispatcher.log"} {
		text, err := os.ReadFile(r.data(name))
		t.Logf("%s (%v):\n%s", name, err, text[max(0, len(text)-8000):])
	}
}

// pids are the processes that run now, by the names of their pid files.
func (r *run) pids(t *testing.T) map[string]int {
	t.Helper()
	paths, err := filepath.Glob(r.data("*.pid"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(filepath.Base(path), ".pid")] = pid
	}
	return found
}

// hints are the commands that the quickstart prints at the end of its story, continuation lines included.
func (r *run) hints() []string {
	const indent = "    "
	_, text, _ := strings.Cut(r.lines.text(), "things to try")
	var commands []string
	for line := range strings.Lines(text) {
		command, indented := strings.CutPrefix(line, indent)
		switch {
		case !indented:
		case strings.HasPrefix(command, " "):
			commands[len(commands)-1] += command
		default:
			commands = append(commands, command)
		}
	}
	return commands
}

// paste runs a command as it was printed, in the directory of the quickstart.
func (r *run) paste(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = r.directory
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s\n%v: %s", command, err, output)
	}
	return string(output)
}

func running(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// eventually waits, within bounds, for what has no signal.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// lines collects output and wakes whoever waits for some of it.
type lines struct {
	mu      sync.Mutex
	all     bytes.Buffer
	changed chan struct{} // closed at the next line
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) read(from io.Reader) {
	scanner := bufio.NewScanner(from)
	for scanner.Scan() {
		l.mu.Lock()
		l.all.WriteString(scanner.Text() + "\n")
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}

func (l *lines) snapshot() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String(), l.changed
}

func (l *lines) text() string {
	text, _ := l.snapshot()
	return text
}

// await waits until all of these appear.
func (r *run) await(t *testing.T, wanted ...string) {
	t.Helper()
	timeout := time.After(patience)
	for _, want := range wanted {
		for {
			text, changed := r.lines.snapshot()
			if strings.Contains(text, want) {
				break
			}
			select {
			case <-changed:
			case <-r.ended:
				t.Fatalf("the quickstart ended (%v) before it wrote %q", r.err, want)
			case <-timeout:
				t.Fatalf("not within %v: the quickstart writes %q", patience, want)
			}
		}
	}
}
