// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"nexus.io/webhooks/test/stack"
)

// clockTick is the kernel's USER_HZ, which has been 100 on Linux for all of Go's platforms.
const clockTick = time.Second / 100

// usage is what was used so far.
type usage struct {
	dispatchers, redis, receiver time.Duration
	scripts, commands            int64 // calls of scripts; all commands, with those inside scripts, but for INFO
}

func (r *rig) usage(ctx context.Context) usage {
	u := usage{receiver: cpu(r.receiver.Pid())}
	for _, d := range r.dispatchers {
		u.dispatchers += cpu(d.Pid())
	}
	for _, server := range r.redis {
		u.redis += cpu(server.Pid())
		client := server.Client()
		u.addCommands(client.Info(ctx, "commandstats").Val())
		_ = client.Close()
	}
	return u
}

func (u *usage) addCommands(stats string) {
	for line := range strings.Lines(stats) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":calls=")
		calls, _, _ := strings.Cut(rest, ",")
		n, _ := strconv.ParseInt(calls, 10, 64)
		switch name {
		case "cmdstat_info", "cmdstat_hello", "cmdstat_client|setinfo": // our own
		case "cmdstat_evalsha", "cmdstat_eval":
			u.scripts += n
			u.commands += n
		default:
			u.commands += n
		}
	}
}

// peak is the largest resident size of a dispatcher since the last resetPeaks, in bytes.
func (r *rig) peak() int64 {
	largest := int64(0)
	for _, d := range r.dispatchers {
		largest = max(largest, peak(d.Pid()))
	}
	return largest
}

// redisPeak is the same of a Redis. Redis' own used_memory_peak cannot be reset.
func (r *rig) redisPeak() int64 {
	largest := int64(0)
	for _, server := range r.redis {
		largest = max(largest, peak(server.Pid()))
	}
	return largest
}

// resetPeaks makes the resident sizes of now the largest ones, so that a stage does not inherit those before it.
func (r *rig) resetPeaks() error {
	for _, d := range r.dispatchers {
		if err := resetPeak(d.Pid()); err != nil {
			return err
		}
	}
	for _, server := range r.redis {
		if err := resetPeak(server.Pid()); err != nil {
			return err
		}
	}
	return nil
}

// cpu is the user and system time of a process, proc(5).
func cpu(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// resetPeak makes the resident size of now the largest one of a process, proc(5).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// peak is the largest resident size of a process since the last resetPeak, in bytes.
func peak(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	kib, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return kib << 10
}

// waitCPU waits for a process to end and returns the CPU time that it used.
func waitCPU(p *stack.Process) (time.Duration, error) {
	state, err := p.Wait()
	if err != nil {
		return 0, err
	}
	return state.UserTime() + state.SystemTime(), nil
}
