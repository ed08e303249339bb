package queue

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"nexus.io/webhooks/test/redistest"
)

// BenchmarkScripts tells how long Redis is held for each delivery, in µs, by its own clock: 100 subscriptions, bodies of
// 1 KiB, one match for each event, leased with its publication (early) or in its turn.
//
//	go test -run xxx -bench Scripts ./internal/dispatcher/queue
func BenchmarkScripts(b *testing.B) {
	for _, batch := range []int{1, 16, 64} {
		for _, early := range []bool{true, false} {
			b.Run(fmt.Sprintf("batch=%d/early=%t", batch, early), func(b *testing.B) { benchmarkScripts(b, batch, early) })
		}
	}
}

func benchmarkScripts(b *testing.B, batch int, early bool) {
	client := redistest.ForTest(b).Client()
	b.Cleanup(func() { _ = client.Close() })
	r := &rig{t: b, client: client, keys: newKeys("b", 0), now: begin, most: 1_000_000, bytes: 1 << 30, earlyBytes: 1 << 30}
	ids := subscriptions(100)
	for _, id := range ids {
		r.configure(id + " 1 1000000 1000 100000 1 0")
	}
	payload := "build.completed\n" + strings.Repeat("x", 1024)
	attempt := strings.Repeat("a", 250) // that of a success
	spent := map[string]float64{}
	next, token, unfiled := 0, 0, 0
	measure := func(name string, do func()) {
		before := scriptTime(b, r)
		do()
		spent[name] += scriptTime(b, r) - before
	}
	cpu := cpuTime(b, r)
	for b.Loop() {
		events := make([]pub, batch)
		for i := range events {
			next++
			n := strconv.Itoa(next)
			events[i] = pub{id: "evt_" + n, payload: payload, targets: ids[next%100] + "/" + fmt.Sprintf("%08x-%04x-7000-8000-%012d", r.now>>16, r.now&0xffff, next)}
		}
		if early {
			r.early = batch
		}
		measure("publish", func() { r.publish(events...) })
		if !early {
			measure("lease", func() { r.leaseRaw(claim{most: batch}) })
		}
		token++
		ends := make([]end, batch)
		for i, e := range events {
			_, delivery, _ := strings.Cut(e.targets, "/")
			ends[i] = end{delivery: delivery, token: token, result: Done, status: 200, took: 5, attempt: attempt}
		}
		if n := r.client.SCard(b.Context(), r.keys.prefix+"claims:"+strconv.Itoa(token)).Val(); n != int64(batch) {
			b.Fatalf("leased %d of %d", n, batch)
		}
		measure("settle", func() { r.settle(ends...) })
		if unfiled += batch; unfiled >= 1000 { // as often as a dispatcher does that delivers 1,000 a second
			unfiled = 0
			for more := true; more; {
				measure("file", func() { more = !strings.HasSuffix(r.file(filing{records: fileRecords, forget: forgetMost}), " 0 0]") })
			}
		}
		r.now += 3
	}
	b.ReportMetric((cpuTime(b, r)-cpu)/float64(b.N*batch), "cpu-µs/delivery")
	for name, micros := range spent {
		b.ReportMetric(micros/float64(b.N*batch), name+"-µs/delivery")
	}
}

// scriptTime is the time that all scripts took so far, in µs.
func scriptTime(b *testing.B, r *rig) float64 {
	for line := range strings.Lines(r.client.Info(b.Context(), "commandstats").Val()) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:"); ok {
			_, after, _ := strings.Cut(rest, "usec=")
			micros, _, _ := strings.Cut(after, ",")
			n, _ := strconv.ParseFloat(micros, 64)
			return n
		}
	}
	return 0
}

// cpuTime is what the server's main thread has computed so far, in µs: other than the scripts' time it does not count
// who else wants the machine.
func cpuTime(b *testing.B, r *rig) float64 {
	total := 0.0
	for line := range strings.Lines(r.client.Info(b.Context(), "cpu").Val()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_user_main_thread" || name == "used_cpu_sys_main_thread" {
			n, _ := strconv.ParseFloat(value, 64)
			total += n * 1e6
		}
	}
	return total
}

// BenchmarkDurability tells what a 202 costs that waits for a replica or for the disk: 100 publishers at once, bodies of
// 1 KiB, everything on this machine, whose disk and loopback are what it has.
//
//	go test -run xxx -bench Durability -benchtime 20000x ./internal/dispatcher/queue
func BenchmarkDurability(b *testing.B) {
	for _, fsync := range []string{"everysec", "always"} {
		for _, d := range []Durability{ByRedis, ByReplica, ByDisk} {
			if d == ByDisk && fsync == "everysec" {
				continue // up to a second for each batch, by the setting
			}
			b.Run(fmt.Sprintf("durability=%s/appendfsync=%s", d, fsync), func(b *testing.B) { benchmarkDurability(b, d, fsync) })
		}
	}
}

func benchmarkDurability(b *testing.B, d Durability, fsync string) {
	server := redistest.WithWAITAOF(b, "--appendonly", "yes", "--appendfsync", fsync)
	server.ReplicaForTest(b)
	client := server.Client()
	b.Cleanup(func() { _ = client.Close() })
	q, _ := place{client, "b", 1}.run(b, func(o *Options, _ *sink) { o.Durability = d })
	ids := subscriptions(100)
	configure(b, q, ids...)
	body := []byte(strings.Repeat("x", 1024))
	var n atomic.Int64
	b.SetParallelism(100 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			e := publication(fmt.Sprint("e", i), ids[i%100])
			e.Body = body
			if _, err := q.Publish(b.Context(), []Publication{e}); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
