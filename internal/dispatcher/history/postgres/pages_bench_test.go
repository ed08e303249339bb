// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/test/postgrestest"
)

var (
	benchRows    = flag.Int("history.rows", 100_000, "deliveries that the benchmark of pages has in its tables")
	benchDays    = flag.Int("history.days", 30, "days over which they are spread")
	benchURL     = flag.String("history.url", "", "a database to use, and to fill where it is empty, in place of one of its own")
	benchExplain = flag.Bool("history.explain", false, "show the plans")
)

const (
	benchSubscriptions = 1000
	benchNamespaces    = 50
)

//go:embed testdata/fill.sql
var fill string

// BenchmarkPages measures the queries that people ask, at random places of tables with -history.rows rows. A run has
// its own server, whose cache is a quarter of the memory that 10 million rows take.
//
//	go test -run='^$' -bench=Pages -benchtime=300x -timeout=2h -history.rows=10000000 -history.explain \
//	    ./internal/dispatcher/history/postgres
func BenchmarkPages(b *testing.B) {
	bench := newBench(b)
	for _, kind := range bench.kinds() {
		b.Run(kind.name, func(b *testing.B) { bench.measure(b, kind) })
	}
	for _, kind := range bench.kinds() {
		if bench.server == nil {
			break // it is not ours to stop
		}
		b.Run("Cold/"+kind.name, func(b *testing.B) { bench.measureCold(b, kind) })
	}
}

type bench struct {
	*postgres.Store
	server *postgrestest.Server
	url    string
	first  time.Time
	ids    []history.Record // a sample
}

func newBench(b *testing.B) *bench {
	b.Helper()
	ctx := b.Context()
	made := &bench{url: *benchURL, first: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -*benchDays+1)}
	if made.url == "" {
		var err error
		made.server = postgrestest.ForTest(b, "shared_buffers=2GB", "max_wal_size=8GB")
		if made.url, err = made.server.Database(ctx); err != nil {
			b.Fatal(err)
		}
	}
	store, err := postgres.Open(postgres.Options{URL: made.url, RetentionDays: *benchDays, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	runCtx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { store.Run(runCtx) })
	b.Cleanup(func() { cancel(); running.Wait(); store.Close() })
	for store.Ready(ctx) != nil {
		<-time.After(10 * time.Millisecond)
	}
	made.Store = store
	page, err := store.List(ctx, history.Filter{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	if len(page.Records) == 0 {
		made.fill(b)
	}
	made.sample(b)
	return made
}

func (m *bench) fill(b *testing.B) {
	b.Helper()
	ctx, begun := b.Context(), time.Now()
	conn, err := pgx.Connect(ctx, m.url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for d := range *benchDays {
		day := m.first.AddDate(0, 0, d)
		// A record makes the day's partitions.
		if _, err := m.Write(ctx, history.Batch{Records: []history.Record{record(day)}}); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Exec(ctx, fill, day, *benchRows / *benchDays, benchSubscriptions, benchNamespaces); err != nil {
			b.Fatal(err)
		}
	}
	var size string
	if _, err := conn.Exec(ctx, "VACUUM (ANALYZE) nexus_webhooks.deliveries"); err != nil {
		b.Fatal(err)
	}
	err = conn.QueryRow(ctx, `SELECT pg_size_pretty(sum(pg_table_size(inhrelid))) || ' in tables and ' ||
		pg_size_pretty(sum(pg_indexes_size(inhrelid))) || ' in indexes' FROM pg_inherits
		WHERE inhparent = 'nexus_webhooks.deliveries'::regclass`).Scan(&size)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("filled %d rows in %s: %s", *benchRows, time.Since(begun).Round(time.Second), size)
}

func (m *bench) sample(b *testing.B) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), m.url)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(b.Context(), `SELECT id::text, event_id, event_type, subscription_id, namespace
		FROM nexus_webhooks.deliveries TABLESAMPLE BERNOULLI (least(100, 2e5 / $1::int)) LIMIT 4000`, *benchRows)
	if err != nil {
		b.Fatal(err)
	}
	m.ids, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r history.Record, err error) {
		err = row.Scan(&r.ID, &r.EventID, &r.EventType, &r.SubscriptionID, &r.Namespace)
		return r, err
	})
	if err != nil || len(m.ids) == 0 {
		b.Fatalf("%d sampled, error %v", len(m.ids), err)
	}
}

type kind struct {
	name   string
	filter func(history.Record) history.Filter // about a record; nil reads it by its id
}

func (m *bench) kinds() []kind {
	moment := func() time.Time { return m.first.Add(rand.N(time.Duration(*benchDays) * 24 * time.Hour)) }
	namespaces := func(n int) []string {
		var names []string
		for _, i := range rand.Perm(benchNamespaces)[:n] {
			names = append(names, "team-"+strconv.Itoa(i))
		}
		return names
	}
	type record = history.Record
	type filter = history.Filter
	return []kind{
		{"ByID", nil},
		{"ByEvent", func(r record) filter { return filter{EventID: r.EventID} }},
		{"Newest", func(record) filter { return filter{} }},
		{"Newest1000", func(record) filter { return filter{Limit: 1000} }},
		{"AllFailed", func(record) filter { return filter{Statuses: []history.Status{history.Failed}} }},
		{"Subscription", func(r record) filter { return filter{SubscriptionIDs: []string{r.SubscriptionID}} }},
		{"Subscription1000", func(r record) filter {
			return filter{SubscriptionIDs: []string{r.SubscriptionID}, Limit: 1000}
		}},
		{"SubscriptionFailed", func(r record) filter {
			return filter{SubscriptionIDs: []string{r.SubscriptionID}, Statuses: []history.Status{history.Failed}}
		}},
		{"SubscriptionCanceledOfAType", func(r record) filter {
			return filter{SubscriptionIDs: []string{r.SubscriptionID}, Statuses: []history.Status{history.Canceled},
				EventType: r.EventType}
		}},
		{"SubscriptionOfAType", func(r record) filter {
			return filter{SubscriptionIDs: []string{r.SubscriptionID}, EventType: r.EventType}
		}},
		{"SubscriptionDeepCursor", func(r record) filter {
			return filter{SubscriptionIDs: []string{r.SubscriptionID}, After: history.CursorBehind(&r)}
		}},
		{"DeepCursor", func(r record) filter { return filter{After: history.CursorBehind(&r)} }},
		{"AnHour", func(record) filter { t := moment(); return filter{Since: t, Until: t.Add(time.Hour)} }},
		{"AnHourFailed", func(record) filter {
			t := moment()
			return filter{Since: t, Until: t.Add(time.Hour), Statuses: []history.Status{history.Failed}}
		}},
		{"Namespace", func(r record) filter { return filter{Namespaces: []string{r.Namespace}} }},
		{"TenNamespaces", func(record) filter { return filter{Namespaces: namespaces(10)} }},
		{"FortyNamespacesFailed", func(record) filter {
			return filter{Namespaces: namespaces(40), Statuses: []history.Status{history.Failed}}
		}},
		{"FortyNamespacesDeepCursor", func(r record) filter {
			return filter{Namespaces: namespaces(40), After: history.CursorBehind(&r)}
		}},
		{"EventType", func(r record) filter { return filter{EventType: r.EventType} }},
	}
}

func (m *bench) ask(b *testing.B, k kind, r history.Record) time.Duration {
	b.Helper()
	var err error
	begun := time.Now()
	if k.filter == nil {
		_, err = m.Get(b.Context(), r.ID)
	} else {
		_, err = m.List(b.Context(), k.filter(r))
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}

func (m *bench) measure(b *testing.B, k kind) {
	var took []time.Duration
	for b.Loop() {
		took = append(took, m.ask(b, k, m.ids[rand.IntN(len(m.ids))]))
	}
	report(b, took)
	if *benchExplain && k.filter != nil {
		m.explain(b, k)
	}
}

func report(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	for name, i := range map[string]int{"p50-ms": len(took) / 2, "p99-ms": len(took) * 99 / 100, "max-ms": len(took) - 1} {
		b.ReportMetric(float64(took[i].Microseconds())/1000, name)
	}
}

// measureCold asks once, after neither PostgreSQL nor the system have anything of the tables in memory.
func (m *bench) measureCold(b *testing.B, k kind) {
	var took []time.Duration
	for range 5 {
		m.server.Stop()
		if err := filepath.WalkDir(m.server.Dir, forget); err != nil {
			b.Fatal(err)
		}
		if err := m.server.Restart(); err != nil {
			b.Fatal(err)
		}
		for m.Ready(b.Context()) != nil {
			<-time.After(10 * time.Millisecond)
		}
		took = append(took, m.ask(b, k, m.ids[rand.IntN(len(m.ids))]))
	}
	report(b, took)
}

func forget(path string, entry fs.DirEntry, err error) error {
	if err != nil || !entry.Type().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := file.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func (m *bench) explain(b *testing.B, k kind) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), m.url+"&default_query_exec_mode=cache_describe"+
		"&enable_seqscan=off&enable_bitmapscan=off&enable_sort=off&enable_hashjoin=off&enable_mergejoin=off&jit=off")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	sql, args := m.Statement(k.filter(m.ids[0]))
	var lines []string
	for range 2 { // a connection's first plan takes longer
		rows, err := conn.Query(b.Context(), "EXPLAIN (ANALYZE, BUFFERS) "+sql, args...)
		if err != nil {
			b.Fatal(err)
		}
		if lines, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			b.Fatal(err)
		}
	}
	_, _ = fmt.Fprintf(os.Stdout, "%s: %s\n%s\n\n", k.name, sql, strings.Join(lines, "\n"))
}
