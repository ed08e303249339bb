// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/test/postgrestest"
)

// cut says when a connection breaks.
type cut int32

const (
	never        cut = iota
	atCommit         // when the client asks for the commit, which PostgreSQL then never sees
	beforeAnswer     // when PostgreSQL has committed, and answers
)

// link is a way to PostgreSQL that can break.
type link struct {
	address string
	cut     atomic.Int32 // of the next connection that commits
	cuts    atomic.Int32
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String()}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { l.carry(client, to) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); running.Wait() })
	return l
}

func (l *link) carry(client net.Conn, to string) {
	defer func() { _ = client.Close() }()
	upstream, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = upstream.Close() }()
	var mute atomic.Bool // the answer is not to arrive
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 32<<10)
		for {
			n, err := upstream.Read(buffer)
			if err != nil || mute.Load() {
				_ = client.Close()
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	l.forward(client, upstream, &mute)
	if mute.Load() {
		<-done // PostgreSQL has answered
	}
	_ = upstream.Close()
	<-done
}

func (l *link) forward(client io.Reader, upstream io.Writer, mute *atomic.Bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		committed := false
		if how := cut(l.cut.Load()); how != never && bytes.Contains(buffer[:n], []byte("commit")) {
			l.cut.Store(int32(never))
			l.cuts.Add(1)
			if how == atCommit {
				return
			}
			mute.Store(true)
			committed = true
		}
		if _, err := upstream.Write(buffer[:n]); err != nil || committed {
			return
		}
	}
}

func TestABatchWhoseAnswerIsLostIsStoredExactlyOnce(t *testing.T) {
	for name, test := range map[string]struct {
		cut    cut
		rows   string
		second history.Written
	}{
		"the connection breaks before the commit": {atCommit, "0", history.Written{Stored: 3}},
		"the answer to the commit is lost":        {beforeAnswer, "3", history.Written{Repeated: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			url := newDatabase(t)
			l := newLink(t, server.Address)
			direct := &rig{t: t, url: url}
			r := openRig(t, strings.Replace(url, server.Address, l.address, 1))
			body := []byte("{}")
			batch := history.Batch{Records: records(3, time.Now()), Bodies: map[history.BodyRef][]byte{history.RefOf(body): body}}
			batch.Records[0].Body = history.RefOf(body)
			l.cut.Store(int32(test.cut))
			if _, err := r.Write(t.Context(), batch); !errors.Is(err, history.ErrUnavailable) || l.cuts.Load() != 1 {
				t.Fatalf("error %v after %d cuts", err, l.cuts.Load())
			}
			if got := direct.count(); got != test.rows {
				t.Errorf("there are %s rows", got)
			}
			written, err := r.Write(t.Context(), batch)
			if diff := cmp.Diff(test.second, written); err != nil || diff != "" {
				t.Errorf("written again: error %v (-want +got):\n%s", err, diff)
			}
			if got := direct.count(); got != "3" {
				t.Errorf("then there are %s rows", got)
			}
		})
	}
}

func TestTwoReplicasThatWriteTheSameStoreItOnce(t *testing.T) {
	r := newRig(t)
	other := openRig(t, r.url)
	for range 10 {
		batch := records(200, time.Now())
		turned := make([]history.Record, 0, len(batch))
		for i := range batch {
			turned = append(turned, batch[len(batch)-1-i])
		}
		var stored atomic.Int64
		var writers sync.WaitGroup
		for _, write := range []func(){
			func() { stored.Add(int64(r.write(batch...).Stored)) },
			func() { stored.Add(int64(other.write(turned...).Stored)) },
		} {
			writers.Go(write)
		}
		writers.Wait()
		if stored.Load() != 200 {
			t.Errorf("%d of 200 were stored", stored.Load())
		}
	}
}

func TestPostgreSQLMayComeLateAndGoAndComeBack(t *testing.T) {
	own := postgrestest.ForTest(t)
	url, err := own.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own.Stop()
	r := unstartedRig(t, url, 7)
	r.start()
	batch := history.Batch{Records: records(5, time.Now())}
	away := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, writeErr := r.Write(ctx, batch)
		_, listErr := r.List(ctx, history.Filter{})
		_, getErr := r.Get(ctx, batch.Records[0].ID)
		_, bodiesErr := r.Bodies(ctx, batch.Records, 1)
		for call, err := range map[string]error{
			"write": writeErr, "list": listErr, "get": getErr, "bodies": bodiesErr, "ready": r.Ready(ctx),
		} {
			if !errors.Is(err, history.ErrUnavailable) || strings.Contains(err.Error(), "nexus@") {
				t.Errorf("%s: %v", call, err)
			}
		}
	}
	away()
	stored := 0
	for _, end := range []func(){own.Stop, own.Kill} {
		if err := own.Restart(); err != nil {
			t.Fatal(err)
		}
		r.awaitReady()
		eventually(t, func() error {
			written, err := r.Write(t.Context(), batch)
			stored += written.Stored
			return err
		})
		end()
		away()
	}
	if err := own.Restart(); err != nil {
		t.Fatal(err)
	}
	r.awaitReady()
	if got := r.count(); got != "5" || stored != 5 {
		t.Errorf("%d were stored and there are %s rows", stored, got)
	}
}

func TestSlowPostgreSQLEndsACallInTime(t *testing.T) {
	r := newRig(t)
	blocker := lockTable(t, r.url)
	defer blocker()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := r.Write(ctx, history.Batch{Records: records(1, time.Now())}); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("write: %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAServerThatTakesNoWritesIsLeftForOneThatDoes(t *testing.T) {
	r := newRig(t)
	admin := &rig{t: t, url: r.url + "&default_transaction_read_only=off"}
	set := func(value string) {
		admin.value("DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_read_only = " +
			value + "'; END $$")
	}
	set("on")
	batch := history.Batch{Records: records(1, time.Now())}
	if _, err := r.Write(t.Context(), batch); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("while it is a standby: %v", err)
	}
	set("off")
	if written, err := r.Write(t.Context(), batch); err != nil || written.Stored != 1 {
		t.Errorf("afterwards: %+v, %v", written, err)
	}
}
