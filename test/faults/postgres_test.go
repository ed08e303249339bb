// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/test/postgrestest"
)

// PostgreSQL is slow, dead, hung and full, one after the other. Nobody feels it who publishes or is delivered to, and
// afterwards the history holds every delivery once.
func TestAPostgreSQLThatFails(t *testing.T) {
	server := postgrestest.ForTest(t, "--wal-segsize=1")
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	way := newSlowWay(t, server.Address)
	r := newTrial(t, expectation{flags: []string{"--postgres-url=" + strings.Replace(url, server.Address, way.address, 1)}})
	var begun, ended time.Time
	r.run(func(context.Context, *trial) int {
		r.pass(2 * calm) // what to compare with
		r.copied(url, 1)
		begun = time.Now()
		r.breakPostgres(server, way, url)
		ended = time.Now()
		return 0
	})
	r.unhurt(begun, ended)
	r.recorded(url)
}

func (r *trial) breakPostgres(server *postgrestest.Server, way *slowWay, url string) {
	part := *faultTime / 4
	way.delay.Store(int64(300 * time.Millisecond))
	r.pass(part) // it is slow
	way.delay.Store(0)
	if way.held.Load() == 0 {
		r.Error("nobody spoke with PostgreSQL while it was slow")
	}

	r.goesOn()
	server.Kill()
	r.standsStill(part) // it is dead
	r.must(server.Restart())

	r.goesOn()
	r.must(server.Hang())
	r.standsStill(part) // it hangs
	r.must(server.Resume())

	r.goesOn()
	r.must(server.Fill())
	if err := large(r.Context(), url); err == nil {
		r.Error("PostgreSQL is not full")
	}
	r.pass(part) // it is full
	r.must(server.Free())
}

// standsStill lets time pass in which nothing may be copied.
func (r *trial) standsStill(d time.Duration) {
	r.Helper()
	r.pass(calm / 2) // answers that were under way have come
	before := r.copies()
	r.pass(d) // the load runs
	if after := r.copies(); after != before {
		r.Errorf("%g deliveries were copied while PostgreSQL was away", after-before)
	}
}

// goesOn waits until something is copied.
func (r *trial) goesOn() {
	r.Helper()
	before := r.copies()
	r.eventually("what has ended is copied again", func() error {
		if after := r.copies(); after == before {
			return fmt.Errorf("still %g deliveries", after)
		}
		return nil
	})
}

// copies is how many deliveries all dispatchers have copied so far.
func (r *trial) copies() (n float64) {
	r.Helper()
	for _, d := range r.s.Dispatchers {
		n += r.metrics(d)("nexus_webhook_history_copied_total")
	}
	return n
}

// large tries to write much.
func large(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
	return err
}

// copied waits until the history holds so many deliveries.
func (r *trial) copied(url string, least int) {
	r.Helper()
	r.eventually("what has ended is copied", func() error {
		times, err := history(r.Context(), url)
		if err == nil && len(times) < least {
			err = fmt.Errorf("%d of %d", len(times), least)
		}
		return err
	})
}

// recorded compares the history with what was accepted, and with what became of it.
func (r *trial) recorded(url string) {
	r.Helper()
	all := 0
	for _, ids := range r.load.accepted {
		all += len(ids)
	}
	r.copied(url, all)
	times, err := history(r.Context(), url)
	if err != nil {
		r.Fatal(err)
	}
	for kind, ids := range r.load.accepted {
		status := "success"
		if kind == "hanging" {
			status = "canceled"
		}
		for _, id := range ids {
			if got := times[id]; len(got) != 1 || got[0] != status {
				r.Fatalf("%s (%s) is in the history as %v", id, kind, got)
			}
		}
	}
	r.Logf("the history holds %d deliveries, each once", len(times))
}

// history is the statuses of each event's deliveries.
func history(ctx context.Context, url string) (map[string][]string, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT event_id, status::text FROM nexus_webhooks.deliveries")
	if err != nil {
		return nil, err
	}
	statuses := map[string][]string{}
	var event, status string
	_, err = pgx.ForEachRow(rows, []any{&event, &status}, func() error {
		statuses[event] = append(statuses[event], status)
		return nil
	})
	return statuses, err
}

// slowWay leads to a server, and holds up everything that goes along.
type slowWay struct {
	address string
	delay   atomic.Int64 // nanoseconds
	held    atomic.Int64 // buffers that were held up
}

func newSlowWay(t *testing.T, to string) *slowWay {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &slowWay{address: listener.Addr().String()}
	ctx, end := context.WithCancel(context.Background())
	var going sync.WaitGroup
	going.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			going.Go(func() { w.lead(ctx, conn, to) })
		}
	})
	t.Cleanup(func() {
		end()
		_ = listener.Close()
		going.Wait()
	})
	return w
}

func (w *slowWay) lead(ctx context.Context, from net.Conn, address string) {
	var dialer net.Dialer
	to, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		_ = from.Close()
		return
	}
	both := func() {
		_ = from.Close()
		_ = to.Close()
	}
	defer context.AfterFunc(ctx, both)()
	var group sync.WaitGroup
	group.Go(func() { w.carry(ctx, from, to); both() })
	group.Go(func() { w.carry(ctx, to, from); both() })
	group.Wait()
}

func (w *slowWay) carry(ctx context.Context, from io.Reader, to io.Writer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		delay := time.Duration(w.delay.Load())
		if delay > 0 {
			w.held.Add(1)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
