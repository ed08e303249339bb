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
	dispatcher, redis, receiver time.Duration
	scripts, commands           int64
}

func (r *rig) usage(ctx context.Context) usage {
	u := usage{dispatcher: cpu(r.dispatcher.Pid()), redis: cpu(r.redis.Pid()), receiver: cpu(r.receiver.Pid())}
	client := r.redis.Client()
	defer func() { _ = client.Close() }()
	stats, _ := client.Info(ctx, "commandstats").Result()
	for line := range strings.Lines(stats) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), ":calls=")
		calls, _, _ := strings.Cut(rest, ",")
		n, _ := strconv.ParseInt(calls, 10, 64)
		u.commands += n
		if name == "cmdstat_evalsha" || name == "cmdstat_eval" {
			u.scripts += n
		}
	}
	return u
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

// peak is the largest resident size of a process so far, in bytes.
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

func report(bares [3]figures, one, ten figures, took []time.Duration) {
	base := bares[1]
	base.ratio = 1
	fmt.Printf("\n%-34s %14s %14s %14s\n", "", "bare client", "fan-out 1", "fan-out 10")
	row := func(name, format string, value func(figures) any) {
		fmt.Printf("%-34s", name)
		for _, f := range []figures{base, one, ten} {
			fmt.Printf(" %14s", fmt.Sprintf(format, value(f)))
		}
		fmt.Println()
	}
	per := func(d time.Duration, f figures) float64 { return d.Seconds() * 1000 / float64(f.deliveries) }
	row("deliveries", "%d", func(f figures) any { return f.deliveries })
	row("deliveries/s", "%.0f", func(f figures) any { return f.rate })
	row("ratio to the bare client", "%.2f", func(f figures) any { return f.ratio })
	row("CPU s per 1,000: sender", "%.3f", func(f figures) any { return per(f.sender, f) })
	row("CPU s per 1,000: Redis", "%.3f", func(f figures) any { return per(f.redis, f) })
	row("CPU s per 1,000: receiver", "%.3f", func(f figures) any { return per(f.receiver, f) })
	row("Redis calls per delivery", "%.3f", func(f figures) any { return f.scripts })
	row("  and inside scripts", "%.2f", func(f figures) any { return f.commands })
	row("peak memory, MiB", "%d", func(f figures) any { return f.peak >> 20 })
	fmt.Printf("\nbare client before, between and after: %.0f, %.0f, %.0f a second\n", bares[0].rate, bares[1].rate,
		bares[2].rate)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	fmt.Printf("publish to arrival at %d/s: p50 %.2f ms, p99 %.2f ms (%d deliveries)\n", latencyRate,
		float64(p50.Microseconds())/1000, float64(p99.Microseconds())/1000, len(took))
	fmt.Println()
	ratio := func(name string, f figures, least float64) {
		bar(name, f.ratio >= least, fmt.Sprintf("ratio %.2f, bar %.2f", f.ratio, least))
	}
	ratio("fan-out 1", one, barFanOut1)
	ratio("fan-out 10", ten, barFanOut10)
	bar("latency", p50 < barLatency, fmt.Sprintf("p50 %s, bar %s", p50.Round(10*time.Microsecond), barLatency))
}

func bar(name string, reached bool, detail string) {
	mark := "reached"
	if !reached {
		mark = "MISSED"
	}
	fmt.Printf("%-12s %-8s %s\n", name, mark, detail)
}
