// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nexus.io/webhooks/test/ports"
)

// Process is one binary of ours, which can be ended and started again.
type Process struct {
	Name       string
	URL        string // of a dispatcher's event API
	MetricsURL string
	Env        []string // beside this process's own

	path   string
	args   []string
	env    []string
	log    string
	cmd    *exec.Cmd
	waited chan struct{}
	err    error
}

// NewProcess describes a process that appends its output to the file log.
func NewProcess(name, log, path string, args ...string) *Process {
	return &Process{Name: name, path: path, args: args, log: log}
}

// Become has it be another binary from its next Start on, with these further variables (NAME=value).
func (p *Process) Become(path string, env ...string) { p.path, p.env = path, env }

// Start runs it; its output is appended to its log.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	p.cmd = exec.CommandContext(context.Background(), p.path, p.args...)
	p.cmd.Env = slices.Concat(os.Environ(), p.Env, p.env)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.waited = make(chan struct{})
	go func(cmd *exec.Cmd, waited chan struct{}) {
		p.err = cmd.Wait()
		_ = log.Close()
		close(waited)
	}(p.cmd, p.waited)
	return nil
}

// WaitReady returns once /readyz answers 200.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", p.Name, err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready in %s:\n%s", p.Name, readyTimeout, p.Tail(20))
		case <-p.waited:
			return fmt.Errorf("%s ended at its start:\n%s", p.Name, p.Tail(20))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Signal sends a signal.
func (p *Process) Signal(signal syscall.Signal) error { return p.cmd.Process.Signal(signal) }

// Wait returns once it has ended; the error is that of an exit other than 0.
func (p *Process) Wait() (*os.ProcessState, error) {
	<-p.waited
	return p.cmd.ProcessState, p.err
}

// Pid of the running process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends it as a crash would, and waits. It does no harm to one that has ended.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.waited
}

// Stop sends SIGTERM and waits for the end; the error is that of an exit other than 0.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.waited:
		return p.err
	case <-time.After(stopTimeout):
		p.Kill()
		return errors.New(p.Name + " did not end in " + stopTimeout.String())
	}
}

// Log is all that it wrote.
func (p *Process) Log() string {
	text, _ := os.ReadFile(p.log)
	return string(text)
}

// Tail is the last lines of its log.
func (p *Process) Tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.Log()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// FreeAddress is a loopback host:port that nobody listens on.
func FreeAddress() (string, error) {
	port, err := ports.Free()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
}
