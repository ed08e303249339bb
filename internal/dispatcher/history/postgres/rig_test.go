// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/test/postgrestest"
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

const patience = 20 * time.Second

// rig is a store on a database of its own.
type rig struct {
	*postgres.Store
	t   *testing.T
	url string
	log *log
}

// log shows what a store says, and keeps it.
type log struct {
	mu   sync.Mutex
	text strings.Builder
	to   io.Writer
}

func (l *log) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(line)
	return l.to.Write(line)
}

func (l *log) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return openRig(t, newDatabase(t))
}

func newDatabase(t *testing.T) string {
	t.Helper()
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func openRig(t *testing.T, url string) *rig {
	t.Helper()
	r := unstartedRig(t, url, 7)
	r.start()
	r.awaitReady()
	return r
}

func unstartedRig(t *testing.T, url string, retentionDays int) *rig {
	t.Helper()
	said := &log{to: t.Output()}
	store, err := postgres.Open(postgres.Options{
		URL: url, RetentionDays: retentionDays, Log: slog.New(slog.NewTextHandler(said, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return &rig{store, t, url, said}
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	r.t.Cleanup(func() { cancel(); running.Wait() })
}

func (r *rig) awaitReady() {
	r.t.Helper()
	eventually(r.t, func() error { return r.Ready(r.t.Context()) })
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after %s: %v", patience, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// write stores records and returns what became of them.
func (r *rig) write(records ...history.Record) history.Written {
	r.t.Helper()
	written, err := r.Write(r.t.Context(), history.Batch{Records: records})
	if err != nil {
		r.t.Fatal(err)
	}
	return written
}

func (r *rig) get(id string) history.Record {
	r.t.Helper()
	record, err := r.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// value runs SQL as an operator would, and returns the text that it yields.
func (r *rig) value(sql string, args ...any) string {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(r.t.Context(), sql, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(values, " ")
}

func (r *rig) count() string {
	r.t.Helper()
	return r.value("SELECT count(*)::text FROM nexus_webhooks.deliveries")
}

// idAt is a delivery's id of a time.
func idAt(t time.Time) string {
	var id history.UUID
	_, _ = rand.Read(id[:])
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16|uint64(id[6])<<8&0x0f00|uint64(id[7])|0x7000)
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// record is a plain one, made at a time.
func record(at time.Time) history.Record {
	return history.Record{
		ID: idAt(at), Round: 1, SubscriptionID: "sub_1", Namespace: "team-a", EventID: "evt_1", EventType: "build.failed",
		Status: history.Success, RequestURL: "https://example.com/", CompletedAt: at.UTC().Truncate(time.Microsecond).Add(time.Second),
		Attempts: []history.Attempt{{Number: 1, StatusCode: 200, StartedAt: at.UTC().Truncate(time.Microsecond), ResponseBody: []byte("ok")}},
	}
}

func records(n int, at time.Time) []history.Record {
	made := make([]history.Record, n)
	for i := range made {
		made[i] = record(at)
	}
	return made
}

// lockTable keeps everybody from the table until the function that it returns is called.
func lockTable(t *testing.T, url string) (release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE nexus_webhooks.deliveries"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.Background()) }
}
