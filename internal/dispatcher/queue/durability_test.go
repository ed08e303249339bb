package queue

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// confirm calls confirm.lua, which goes without the time, and answers with what it said and the keys that it wrote: those
// that now stay longer than publish remembers a call.
func (r *rig) confirm(caller string, first, last int) string {
	r.t.Helper()
	const stays = 90_000
	ctx := r.t.Context()
	n, err := r.client.Eval(ctx, confirmSource, r.keys.declared(), caller, first, last, stays).Int64()
	if err != nil {
		r.t.Fatal(err)
	}
	answer := fmt.Sprint(n)
	for _, key := range []string{"confirm", "call:" + caller} {
		ttl := r.client.PTTL(ctx, r.keys.prefix+key).Val().Milliseconds()
		if ttl > 60_000 && ttl <= stays {
			answer += " " + key
		}
	}
	return answer
}

// A row of calls that were all answered is there as a whole; one that another server lacks is not. Each case writes, since
// a WAIT behind what wrote nothing would wait for nothing, but nothing that anybody reads.
func TestConfirmScript(t *testing.T) {
	three := func(r *rig) {
		r.configure("s1 1 60 2 9 1 0")
		for n := 1; n <= 3; n++ {
			r.publishAs(n, pub{id: fmt.Sprint("e", n), targets: fmt.Sprint("s1/d", n)})
		}
		r.publishAs(3, pub{id: "e3", targets: "s1/d3"}) // its answer got lost
	}
	gap := func(r *rig) {
		three(r)
		r.publishAs(5, pub{id: "e5", targets: "s1/d5"}) // the fourth was answered by a server that is gone
	}
	confirm := func(seed func(*rig), caller string, first, last int, answer string) scriptCase {
		return scriptCase{seed: seed, answer: answer, call: func(r *rig) string { return r.confirm(caller, first, last) }}
	}
	runScriptCases(t, map[string]scriptCase{
		"nobody published":               confirm(nil, "q", 1, 1, "0 confirm"),
		"only a look, nobody published":  confirm(nil, "q", 0, 0, "1 confirm"),
		"all of them":                    confirm(three, "q", 1, 3, "1 call:q"),
		"one that is to come":            confirm(three, "q", 1, 4, "0 call:q"),
		"of another caller":              confirm(three, "p", 1, 1, "0 confirm"),
		"only a look":                    confirm(three, "q", 0, 0, "1 call:q"),
		"only a look, of another caller": confirm(three, "p", 0, 0, "1 confirm"),
		"those before the gap":           confirm(gap, "q", 1, 3, "0 call:q"),
		"those around the gap":           confirm(gap, "q", 3, 5, "0 call:q"),
		"those behind it":                confirm(gap, "q", 5, 5, "1 call:q"),
		"only a look behind the gap":     confirm(gap, "q", 0, 0, "1 call:q"),
	})
}

// durable runs a queue at a server and returns it with a function that publishes an event once.
func durable(t *testing.T, s *redistest.Server, d Durability) (*Queue, func(Publication) error) {
	t.Helper()
	client, err := Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, _ := place{client, "durable", 1}.run(t, func(o *Options, _ *sink) { o.Durability = d })
	configure(t, q, "s1")
	return q, func(e Publication) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := q.Publish(ctx, []Publication{e})
		if ctx.Err() != nil {
			t.Error("the publisher was kept until its own patience ended")
		}
		return err
	}
}

func known(id string) Publication {
	e := publication(id, "s1")
	e.Fingerprint = "f"
	return e
}

func TestPublishingWaitsForAReplica(t *testing.T) {
	server := redistest.ForTest(t)
	replica := server.ReplicaForTest(t)
	q, publishOnce := durable(t, server, ByReplica)
	_, undemanding := durable(t, server, ByRedis)
	if err := publishOnce(known("e1")); err != nil {
		t.Fatal(err)
	}
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = replica.Signal(syscall.SIGCONT) }()
	if err := undemanding(known("e2")); err != nil {
		t.Fatal(err)
	}
	if err := publishOnce(known("e2")); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "replica") {
		t.Errorf("a repetition of what is only in Redis: %v", err)
	}
	empty(t, q) // deliveries do not wait for the replica
	before := time.Now()
	if err := publishOnce(known("e3")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a replica that does not receive: %v", err)
	}
	if took := time.Since(before); took > confirmWait/2 {
		t.Errorf("the second refusal took %v, although it was known", took)
	}
	if n := q.client.Exists(t.Context(), newKeys("durable", 0).prefix+"seen:e3").Val(); n != 0 {
		t.Error("what would be refused was queued")
	}
	if err := replica.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"e1", "e2", "e3"} {
		eventually(t, id+" is accepted", func() bool { return publishOnce(known(id)) == nil })
	}
	if n := replica.Client().Exists(t.Context(), newKeys("durable", 0).prefix+"seen:e3").Val(); n != 1 {
		t.Error("the replica has not what was accepted")
	}
}

// A server that has taken over without the events must not confirm them, whatever its replicas say.
func TestAServerThatTookOverConfirmsOnlyWhatItHas(t *testing.T) {
	server := redistest.ForTest(t)
	server.ReplicaForTest(t)
	q, publishOnce := durable(t, server, ByReplica)
	for n := range 3 {
		if err := publishOnce(known(fmt.Sprint("e", n))); err != nil {
			t.Fatal(err)
		}
	}
	s := q.shards[0]
	if err := s.outlasts(t.Context(), 1, 3, confirmWait); err != nil {
		t.Errorf("what is there: %v", err)
	}
	if err := s.outlasts(t.Context(), 1, 4, confirmWait); !errors.Is(err, errElsewhere) {
		t.Errorf("a call that is not there: %v", err)
	}
	if err := q.client.FlushAll(t.Context()).Err(); err != nil { // as a new master would be that received nothing
		t.Fatal(err)
	}
	if err := s.outlasts(t.Context(), 1, 3, confirmWait); !errors.Is(err, errElsewhere) {
		t.Errorf("calls that are lost: %v", err)
	}
}

func TestPublishingWaitsForTheDisk(t *testing.T) {
	server := redistest.WithWAITAOF(t, "--appendonly", "yes", "--appendfsync", "always")
	_, publishOnce := durable(t, server, ByDisk)
	_, undemanding := durable(t, server, ByRedis)
	if err := publishOnce(known("e1")); err != nil {
		t.Fatal(err)
	}
	if err := server.Client().ConfigSet(t.Context(), "appendfsync", "no").Err(); err != nil { // a disk that never ends
		t.Fatal(err)
	}
	if err := undemanding(known("e2")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := publishOnce(known("e2")); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "disk") {
			t.Errorf("what is not on the disk: %v", err)
		}
	}
	if err := server.Client().ConfigSet(t.Context(), "appendfsync", "everysec").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is accepted", func() bool { return publishOnce(known("e2")) == nil })
}

func TestCheckOfDurability(t *testing.T) {
	linked := redistest.ForTest(t, "--appendonly", "yes")
	linked.ReplicaForTest(t)
	noLog := redistest.ForTest(t)
	noLog.ReplicaForTest(t)
	noWaitAOF := redistest.WithWAITAOF(t, "--appendonly", "yes", "--rename-command", "WAITAOF", "") // as before Redis 7.2
	cases := map[string]struct {
		server     *redistest.Server
		durability Durability
		say        string // "" for no finding
		fatal      bool
	}{
		"a replica":            {linked, ByReplica, "", false},
		"no replica":           {redistest.ForTest(t, "--appendonly", "yes"), ByReplica, "no replica is connected", false},
		"a master without log": {noLog, ByReplica, "its replicas then drop what --durability=replica waited for", false},
		"no WAIT":              {redistest.ForTest(t, "--appendonly", "yes", "--rename-command", "WAIT", ""), ByReplica, "it refuses WAIT", true},
		"no WAITAOF":           {noWaitAOF, ByDisk, "it refuses WAITAOF", true},
		"WAITAOF":              {redistest.WithWAITAOF(t, "--appendonly", "yes", "--appendfsync", "always"), ByDisk, "", false},
		"WAITAOF too early":    {redistest.WithWAITAOF(t, "--appendonly", "yes"), ByDisk, "set appendfsync always", false},
		"WAITAOF without log":  {redistest.WithWAITAOF(t), ByDisk, "appendonly is off, so that", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			findings, err := onServer(t, c.server).queue(t, func(o *Options) { o.Durability = c.durability }).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fatal, said := false, false
			for _, f := range findings {
				fatal = fatal || f.Fatal
				said = said || c.say != "" && strings.Contains(f.Message, c.say)
			}
			if fatal != c.fatal || said != (c.say != "") || c.say == "" && len(findings) > 0 {
				t.Errorf("found %+v, want fatal %t and %q", findings, c.fatal, c.say)
			}
		})
	}
}

// WAITAOF waits for what its own connection wrote, and one that wrote nothing would be told at once that all is well.
func TestConfirmingOverAnotherConnectionWaitsToo(t *testing.T) {
	server := redistest.WithWAITAOF(t, "--appendonly", "yes", "--appendfsync", "no") // a disk that never ends
	q, publishOnce := durable(t, server, ByRedis)
	if err := publishOnce(known("e1")); err != nil {
		t.Fatal(err)
	}
	client, err := Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	other := place{client, "durable", 1}.queue(t, func(o *Options) { o.Durability = ByDisk })
	other.instance = q.instance
	if err := other.shards[0].outlasts(t.Context(), 1, 1, 100*time.Millisecond); !errors.Is(err, errNotDurable) {
		t.Errorf("what is not on the disk: %v", err)
	}
}

// Each of many shards waits on a connection of its own, and leaves others for the deliveries.
func TestConfirmationsLeaveConnectionsForTheRest(t *testing.T) {
	server := redistest.ForTest(t)
	replica := server.ReplicaForTest(t)
	shards := 20 * runtime.GOMAXPROCS(0) // twice as many as go-redis would have connections
	client, err := ConnectFor(server.URL(), shards)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, _ := place{client, newPrefix(), shards}.run(t, func(o *Options, _ *sink) { o.Durability = ByReplica })
	ids := oneInEach(shards)
	configure(t, q, ids...)
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var publishing sync.WaitGroup
	for _, id := range ids {
		publishing.Go(func() {
			if _, err := q.Publish(t.Context(), []Publication{publication("e-"+id, id)}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s was accepted: %v", id, err)
			}
		})
	}
	empty(t, q)
	doubts := 0
	for _, s := range q.shards {
		s.mu.Lock()
		if s.unconfirmed.doubt != nil {
			doubts++
		}
		s.mu.Unlock()
	}
	if doubts > 0 { // the first waits have ended
		t.Errorf("deliveries waited for the replica: %d shards know by then that it does not receive", doubts)
	}
	publishing.Wait()
	if err := replica.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// oneInEach are subscriptions of which each lies in another shard, in the order of these.
func oneInEach(shards int) []string {
	ids, left := make([]string, shards), shards
	for n := 0; left > 0; n++ {
		id := fmt.Sprint("s", n)
		if at := shardOf(id, shards); ids[at] == "" {
			ids[at] = id
			left--
		}
	}
	return ids
}

// An event that goes to several nodes is not queued at one while it would be refused for another's sake.
func TestAnEventOfSeveralNodesIsRefusedWhole(t *testing.T) {
	cluster, err := redistest.StartReplicatedCluster(t.TempDir(), 3, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Kill)
	const shards = 6
	client, err := ConnectFor(cluster.URL(), shards)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, c := place{client, newPrefix(), shards}.run(t, func(o *Options, _ *sink) { o.Durability = ByReplica })
	ids := oneInEach(shards)
	configure(t, q, ids...)
	owner := func(shard int) (master, replica *redistest.Server) {
		t.Helper()
		slot := int(client.ClusterKeySlot(t.Context(), q.shards[shard].keys.ready()).Val())
		eventually(t, "all nodes know the replica", func() bool {
			master, replica, _ = cluster.Owner(t.Context(), slot)
			return replica != nil
		})
		return master, replica
	}
	first, replica := owner(0)
	other := 1
	for master, _ := owner(other); master == first; master, _ = owner(other) {
		other++
	}
	if err := replica.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = replica.Signal(syscall.SIGCONT) }()
	event := func(n int) []Publication { // without an id of the publisher's: each is another
		return []Publication{publication(fmt.Sprint("e", n), ids[other], ids[0])}
	}
	for n := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := q.Publish(ctx, event(n))
		cancel()
		if !errors.Is(err, errNotDurable) {
			t.Errorf("publication %d: %v", n, err)
		}
	}
	empty(t, q)
	if got := len(c.got()); got > 2 {
		t.Errorf("%d deliveries of an event that was refused three times, want the 2 of the first time at most", got)
	}
}
