// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package copier_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"nexus.io/webhooks/internal/dispatcher/copier"
	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/test/postgrestest"
	"nexus.io/webhooks/test/redistest"
)

var server *postgrestest.Server // of all tests but those that stop one

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = postgrestest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	failed := m.Run()
	server.Close()
	if err := goleak.Find(); failed == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return failed
}

const patience = 40 * time.Second

// rig is a queue whose deliveries succeed at once, and the copiers of its history.
type rig struct {
	*testing.T
	redis *redistest.Server
	q     *queue.Queue
	made  []string // deliveries
	said  *log
}

// log keeps what is logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

const maxOutbox = 64 << 20

func newRig(t *testing.T, outbox int64) *rig {
	t.Helper()
	t.Parallel() // they wait, mostly
	r := &rig{T: t, redis: redistest.ForTest(t), said: &log{}}
	r.q, _ = r.queue("sender", outbox)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.q.Run(ctx, &consumer{r.q}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	r.must(r.q.Configure(t.Context(), []queue.Limits{{
		SubscriptionID: "sub", Namespace: "team", Generation: 1, RatePerMinute: 1_000_000, MaxInFlight: 1000,
		MaxBacklog: 100_000, Active: true,
	}}))
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// queue is that of one dispatcher, on a client of its own.
func (r *rig) queue(name string, outbox int64) (*queue.Queue, queue.Client) {
	r.Helper()
	client, err := queue.Connect(r.redis.URL())
	r.must(err)
	r.Cleanup(func() { _ = client.Close() })
	q, err := queue.New(queue.Options{
		Client: client, Dispatcher: name, Registerer: prometheus.NewRegistry(), MaxOutboxBytes: outbox,
		Logger: slog.New(slog.NewTextHandler(r.said, nil)),
	})
	r.must(err)
	return q, client
}

// consumer ends each delivery at once.
type consumer struct{ q *queue.Queue }

func (c *consumer) Room() (deliveries, bytes int) { return 1000, 64 << 20 }

func (c *consumer) Take(leases []queue.Lease) {
	for _, l := range leases {
		c.q.Settle(queue.Settlement{
			Lease: l, Result: queue.Done, StatusCode: 200,
			Attempt: history.AppendAttempt(nil, &history.Attempt{
				Number: l.Attempt, StartedAt: time.Now(), Duration: time.Millisecond, StatusCode: 200,
			}, "https://a.example/x", []history.Header{{Name: "X-Nexus-Delivery", Value: l.DeliveryID}}),
		})
	}
}

// deliver publishes events, each with a body of its own, and waits until their deliveries have ended.
func (r *rig) deliver(events int) {
	r.Helper()
	r.deliverAs(events, func() string { return uuid.Must(uuid.NewV7()).String() })
}

func (r *rig) deliverAs(events int, id func() string) {
	r.Helper()
	var all []queue.Publication
	for range events {
		n := len(r.made)
		r.made = append(r.made, id())
		all = append(all, queue.Publication{
			EventID: "evt_" + r.made[n], EventType: "build.completed", Body: fmt.Appendf(nil, `{"id":%q}`, r.made[n]),
			Targets: []queue.Target{{SubscriptionID: "sub", DeliveryID: r.made[n]}},
		})
	}
	begun := time.Now()
	_, err := r.q.Publish(r.Context(), all)
	r.must(err)
	r.eventually("all is delivered", func() error {
		n, err := r.q.Size(r.Context())
		if err == nil && n > 0 {
			err = fmt.Errorf("%d are unfinished", n)
		}
		return err
	})
	if took := time.Since(begun); took > 5*time.Second {
		r.Errorf("delivering %d took %v", events, took)
	}
}

// dispatcher is one that copies, until the end of the test or stop.
type dispatcher struct {
	*copier.Copier
	registry *prometheus.Registry
	client   queue.Client
	stop     func()
}

func (r *rig) copier(name string, store copier.Store, outbox int64) *dispatcher {
	r.Helper()
	q, client := r.queue(name, outbox)
	d := &dispatcher{registry: prometheus.NewRegistry(), client: client}
	d.Copier = copier.New(copier.Options{
		Queue: q, Store: store, Registerer: d.registry, Logger: slog.New(slog.NewTextHandler(r.said, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	d.stop = func() { cancel(); running.Wait() }
	r.Cleanup(d.stop)
	return d
}

// metric is the value of one, with its label if it has one.
func (d *dispatcher) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "nexus_webhook_history_"+name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// store is the history in a database.
func (r *rig) store(url string) *postgres.Store {
	r.Helper()
	s, err := postgres.Open(postgres.Options{
		URL: url, RetentionDays: 7, Log: slog.New(slog.NewTextHandler(r.said, nil)),
	})
	r.must(err)
	r.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	r.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func (r *rig) database(of *postgrestest.Server) string {
	r.Helper()
	url, err := of.Database(r.Context())
	r.must(err)
	return url
}

// rows are the ids of the history, and how many bodies there are.
func (r *rig) rows(url string) (ids map[string]bool, bodies int) {
	r.Helper()
	conn, err := pgx.Connect(r.Context(), url)
	r.must(err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(r.Context(), "SELECT id::text FROM nexus_webhooks.deliveries")
	r.must(err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	r.must(err)
	ids = map[string]bool{}
	for _, id := range all {
		ids[id] = true
	}
	r.must(conn.QueryRow(r.Context(), "SELECT count(*) FROM nexus_webhooks.bodies").Scan(&bodies))
	return ids, bodies
}

// copied waits until nothing waits any more.
func (r *rig) copied() {
	r.Helper()
	r.eventually("all is copied", func() error {
		b, err := r.q.Backlog(r.Context())
		if err == nil && b.Age > 0 {
			err = fmt.Errorf("waiting: %+v", b)
		}
		return err
	})
}

// complete checks that each delivery is there with its body.
func (r *rig) complete(url string) {
	r.Helper()
	r.copied()
	ids, bodies := r.rows(url)
	for _, id := range r.made {
		if !ids[id] {
			r.Errorf("%s is missing", id)
		}
	}
	if len(ids) != len(r.made) || bodies != len(r.made) {
		r.Errorf("%d deliveries and %d bodies of %d", len(ids), bodies, len(r.made))
	}
	if found, _, err := r.q.Audit(r.Context()); err != nil || len(found) > 0 {
		r.Errorf("audit: %v %v", found, err)
	}
}

func (r *rig) eventually(what string, check func() error) {
	r.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			r.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// slow takes longer for the first batch of all than a claim holds that is not made anew.
type slow struct {
	copier.Store
	first *sync.Once
}

func (s slow) Write(ctx context.Context, batch history.Batch) (history.Written, error) {
	s.first.Do(func() {
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	})
	return s.Store.Write(ctx, batch)
}

// frozen is a process that hangs, as its client of Redis shows: while it does, no call begins.
type frozen struct {
	mu   sync.Mutex
	thaw chan struct{} // nil while it runs
}

func (f *frozen) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.thaw = make(chan struct{})
}

func (f *frozen) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.thaw != nil {
		close(f.thaw)
		f.thaw = nil
	}
}

func (f *frozen) wait() {
	f.mu.Lock()
	thaw := f.thaw
	f.mu.Unlock()
	if thaw != nil {
		<-thaw
	}
}

func (f *frozen) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f *frozen) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f.wait()
		return next(ctx, cmd)
	}
}

func (f *frozen) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f.wait()
		return next(ctx, cmds)
	}
}

// freezing hangs its process as soon as the first batch is written.
type freezing struct {
	copier.Store
	frozen
	once    sync.Once
	written chan struct{}
}

func (f *freezing) Write(ctx context.Context, batch history.Batch) (history.Written, error) {
	written, err := f.Store.Write(ctx, batch)
	if err == nil {
		f.once.Do(func() {
			f.freeze()
			close(f.written)
		})
	}
	return written, err
}
