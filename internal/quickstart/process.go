// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout  = 90 * time.Second
	probeInterval = 100 * time.Millisecond
	shownLogLines = 15
	// A program that finds its address taken ends well within this.
	settleTime = 500 * time.Millisecond
)

// process is a program to run.
type process struct {
	name      string
	path      string
	arguments []string
	// environment is added to this process's own and wins over it.
	environment []string
	// log is the file that its output is appended to, pid the file that holds its process id.
	log, pid string
	// ready tells whether the program can be used; it is asked until it returns nil.
	ready func(context.Context) error
	// grace is how long the program may take to end after SIGTERM; then it is killed.
	grace time.Duration
}

// child is a process that runs, or has run until exited was closed.
type child struct {
	id     int
	exited chan struct{}
	err    error // how it ended; set before exited is closed
}

// spawn starts the program. It gets SIGTERM when ctx ends.
func (p *process) spawn(ctx context.Context) (*child, error) {
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", p.name, err)
	}
	defer func() { _ = log.Close() }() // the program has its own descriptor
	cmd := exec.CommandContext(ctx, p.path, p.arguments...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.environment...)
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = p.grace
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	c := &child{id: cmd.Process.Pid, exited: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	if err := os.WriteFile(p.pid, []byte(strconv.Itoa(c.id)+"\n"), 0o600); err != nil {
		return c, fmt.Errorf("write the pid of %s: %w", p.name, err)
	}
	return c, nil
}

// await returns nil once the program is ready, and an error that quotes its log if it ends or takes too long before.
// What answers a probe may be somebody else's that took the address: it is believed if the program then runs on.
func (p *process) await(ctx context.Context, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		unready, next := p.ready(ctx), probeInterval
		if unready == nil {
			next = settleTime
		}
		select {
		case <-c.exited:
			return fmt.Errorf("%s ended before it was ready: %w; %s", p.name, exitError(c), p.logEnd())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; %s", p.name, cmp.Or(unready, ctx.Err()), p.logEnd())
		case <-time.After(next):
		}
		if unready == nil {
			return nil
		}
	}
}

// buried waits for the end of c, which may be nil, and removes the pid: a stale one would mislead whoever kills by it.
func (p *process) buried(c *child) {
	if c != nil {
		<-c.exited
	}
	_ = os.Remove(p.pid) // it may never have been written
}

// logEnd quotes the last lines of the log.
func (p *process) logEnd() string {
	return fmt.Sprintf("its log %s ends so:\n%s", p.log, p.lastLines(shownLogLines))
}

// lastLines returns the last n lines of the log, or why there are none.
func (p *process) lastLines(n int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// exitError says how a child that has exited did so.
func exitError(c *child) error {
	if c.err == nil {
		return errors.New("exit status 0")
	}
	return c.err
}
