// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

var (
	soakTime = flag.Duration("soak-time", 0, "how long the soak lasts; 0: there is none")
	soakRate = flag.Int("soak-rate", 0, "events a second in the soak; 0: half of what the machine can do, which is tried")
)

const (
	peakTime = 15 * time.Second // of which the first third does not count
	samples  = 120              // of the soak
	// A figure is flat if the median of its last quarter is above that of its second by at most a tenth and this. In 20
	// minutes none rose by more than 1 MiB, or 5; a key for each event would be thousands a second.
	flatMemory = 4 // MiB
	flatCount  = 20
)

// A load of half of what the machine can do, for long: nothing is lost, nothing grows, and no log tells of an error.
func TestSoak(t *testing.T) {
	if *soakTime == 0 {
		t.Log("`make soak` asks for it")
		return
	}
	r := newTrial(t, expectation{flags: []string{"--profiling"}})
	sink := newSink(t)
	for _, kind := range soakKinds {
		r.create(kind, sink.url+"/"+kind, func(spec *v1alpha1.WebhookSubscriptionSpec) {
			spec.MaxInFlight = new(int32(100))
		})
		r.routed(r.subs[kind])
	}
	p := newPublishers(r, sink)
	rate := *soakRate
	if rate == 0 {
		rate = p.peak() / 2
	}
	redisSaid := r.redisLog()
	ctx, end := context.WithTimeout(t.Context(), *soakTime)
	defer end()
	begun, published := sink.arrived(), make(chan struct{})
	go func() {
		defer close(published)
		p.run(ctx, rate)
	}()
	f := r.sample(ctx)
	<-published
	r.Logf("%d events a second for %s: %d delivered", rate, *soakTime, sink.arrived()-begun)
	p.compare()
	r.must(r.s.Client.Delete(t.Context(), r.subs["hanging"]))
	r.audit()
	r.flat(f)
	r.silent(redisSaid)
}

// figures are samples of what is in use, by name.
type figures map[string][]float64

// sample looks at every process and at Redis now and then until ctx ends.
func (r *trial) sample(ctx context.Context) figures {
	f := figures{}
	r.every(ctx, *soakTime/samples, func(int) {
		for name, value := range r.look() {
			f[name] = append(f[name], value)
		}
	})
	return f
}

func (r *trial) look() map[string]float64 {
	found := map[string]float64{"manager MiB": r.resident(r.s.Manager.Pid()), "Redis MiB": r.resident(r.s.Redis.Pid())}
	for _, d := range r.s.Dispatchers {
		metric := r.metrics(d)
		found[d.Name+" MiB"] = r.resident(d.Pid())
		found[d.Name+" goroutines"] = metric("go_goroutines")
		found[d.Name+" descriptors"] = metric("process_open_fds")
	}
	redis := r.s.Redis.Client()
	defer func() { _ = redis.Close() }()
	keys, err := redis.DBSize(r.Context()).Result()
	r.must(err)
	found["Redis keys"] = float64(keys)
	found["Redis data MiB"] = float64(used(r.Context(), r)) / (1 << 20)
	return found
}

// resident is the memory of a process in MiB.
func (r *trial) resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		r.Error(err)
		return 0
	}
	kib, _ := strconv.ParseFloat(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(text))[1], 64)
	return kib / 1024
}

// flat compares the last quarter with the second; the first is for warming up.
func (r *trial) flat(f figures) {
	r.Helper()
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all := f[name]
		quarter := len(all) / 4
		if quarter == 0 {
			r.Errorf("%s: only %d samples", name, len(all))
			continue
		}
		was, is := median(all[quarter:2*quarter]), median(all[len(all)-quarter:])
		more := float64(flatCount)
		if strings.HasSuffix(name, "MiB") {
			more = flatMemory
		}
		r.Logf("%-26s %6.0f in the second quarter, %6.0f in the last, at most %6.0f", name, was, is, slices.Max(all))
		if is > was*1.1+more {
			r.Errorf("%s grows: %.0f in the second quarter, %.0f in the last", name, was, is)
		}
	}
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

var errorLine = regexp.MustCompile(`(?m)^.*(?:"level":"ERROR"|panic:|fatal error:).*$`)

// silent checks that no log tells of an error.
func (r *trial) silent(redisSaid string) {
	r.Helper()
	for _, p := range append([]*stack.Process{r.s.Manager}, r.s.Dispatchers...) {
		for _, line := range errorLine.FindAllString(p.Log(), 10) {
			r.Errorf("%s: %s", p.Name, line)
		}
	}
	for line := range strings.Lines(strings.TrimPrefix(r.redisLog(), redisSaid)) {
		if strings.Contains(line, " # ") { // Redis' sign of a warning
			r.Errorf("Redis: %s", strings.TrimSpace(line))
		}
	}
}

func (r *trial) redisLog() string {
	paths, err := filepath.Glob(filepath.Join(r.s.Redis.Dir, "redis-*.log"))
	if err != nil || len(paths) != 1 {
		r.Fatalf("the log of Redis: %v %v", paths, err)
	}
	text, err := os.ReadFile(paths[0])
	r.must(err)
	return string(text)
}

// publishers post numbered events. These have no id: one that publishers choose is remembered for a day.
type publishers struct {
	*trial
	sink     *sink
	numbers  chan int
	next     int
	accepted *marks
}

const publishersAtOnce = 32 // to one dispatcher

func newPublishers(r *trial, s *sink) *publishers {
	return &publishers{trial: r, sink: s, accepted: &marks{}}
}

// peak is how many events a second are delivered when publishers do what they can.
func (p *publishers) peak() int {
	ctx, end := context.WithTimeout(p.Context(), peakTime)
	defer end()
	published := make(chan struct{})
	go func() {
		defer close(published)
		p.run(ctx, 0)
	}()
	p.pass(peakTime / 3) // warming up
	warm, since := p.sink.arrived(), time.Now()
	<-ctx.Done()
	rate := int(float64(p.sink.arrived()-warm) / time.Since(since).Seconds())
	<-published
	p.compare()
	p.Logf("at most %d events a second", rate)
	return rate
}

// run publishes at a rate until ctx ends, as fast as it can where that is 0.
func (p *publishers) run(ctx context.Context, rate int) {
	p.numbers = make(chan int, cmp.Or(rate, 1))
	done := make(chan struct{})
	count := 0
	for _, d := range p.s.Dispatchers {
		for range publishersAtOnce {
			count++
			go func() {
				for n := range p.numbers {
					p.post(d, n)
				}
				done <- struct{}{}
			}()
		}
	}
	p.number(ctx, rate)
	close(p.numbers)
	for range count {
		<-done
	}
}

// number hands out the numbers of events, a hundredth of a second's at a time.
func (p *publishers) number(ctx context.Context, rate int) {
	begun, given := time.Now(), 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if rate > 0 {
			<-tick.C
		}
		for rate == 0 && ctx.Err() == nil || given < int(time.Since(begun).Seconds()*float64(rate)) {
			p.next++
			given++
			select {
			case p.numbers <- p.next:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (p *publishers) post(d *stack.Process, n int) {
	body := fmt.Sprintf(`{"type":"build.completed","source":"soak","data":{"project":%q,"n":%d}}`, soakKind(n), n)
	status, answer, err := stack.Post(p.Context(), p.load.client, d.URL+"/api/v1/events", body)
	if err != nil || status != 202 {
		p.Errorf("event %d: %d %s %v", n, status, answer, err)
		return
	}
	p.accepted.add(n)
}

// compare waits until all that was accepted arrived.
func (p *publishers) compare() {
	p.Helper()
	p.eventually("all arrives", func() error {
		if lost := p.accepted.without(&p.sink.taken); lost > 0 {
			return fmt.Errorf("%d events are missing", lost)
		}
		return nil
	})
	if n := p.sink.twice.Load(); n > 0 {
		p.Errorf("%d events were taken twice", n)
	}
}
