// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package copier_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/test/postgrestest"
)

func TestTwoDispatchersCopyEachDeliveryOnceAndDoNotDoTheSame(t *testing.T) {
	r := newRig(t, maxOutbox)
	url := r.database(server)
	var first sync.Once
	one := r.copier("one", slow{r.store(url), &first}, maxOutbox)
	other := r.copier("other", slow{r.store(url), &first}, maxOutbox)
	for range 4 {
		r.deliver(500)
	}
	r.complete(url)
	stored := one.metric(t, "copied_total", "stored") + other.metric(t, "copied_total", "stored")
	repeated := one.metric(t, "copied_total", "repeated") + other.metric(t, "copied_total", "repeated")
	if stored != 2000 || repeated != 0 {
		t.Errorf("%v were stored and %v written again", stored, repeated)
	}
	if err := errors.Join(one.Check(t.Context()), other.Check(t.Context())); err != nil {
		t.Error(err)
	}
}

// It has written and not let go when it hangs; much later it goes on where it was.
func TestACopierThatHangsIsReplacedAndDoesNoHarm(t *testing.T) {
	r := newRig(t, maxOutbox)
	url := r.database(server)
	hanging := &freezing{Store: r.store(url), written: make(chan struct{})}
	one := r.copier("one", hanging, maxOutbox)
	one.client.AddHook(hanging)
	t.Cleanup(hanging.release) // before it is waited for
	r.deliver(300)
	<-hanging.written
	begun := time.Now()
	r.deliver(300)
	other := r.copier("other", r.store(url), maxOutbox)
	r.complete(url)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it was replaced after %v", took)
	}
	if n := other.metric(t, "copied_total", "repeated"); n == 0 {
		t.Error("nothing was written again, so it did not hang between writing and letting go")
	}
	r.deliver(100)
	hanging.release()
	r.deliver(300)
	r.complete(url)
}

func TestPostgreSQLMayStopAndStartAgain(t *testing.T) {
	r := newRig(t, maxOutbox)
	own := postgrestest.ForTest(t)
	url := r.database(own)
	d := r.copier("one", r.store(url), maxOutbox)
	r.deliver(100)
	r.complete(url)
	own.Stop()
	for range 5 {
		r.deliver(200)
	}
	r.eventually("it is told", func() error {
		if d.Check(t.Context()) == nil {
			return errors.New("the check passes")
		}
		return nil
	})
	if lag, size := d.metric(t, "lag_seconds", ""), d.metric(t, "outbox_bytes", ""); lag <= 0 || size < 1000*50 {
		t.Errorf("%v s and %v bytes wait", lag, size)
	}
	r.must(own.Restart())
	r.complete(url)
	if lag, size := d.metric(t, "lag_seconds", ""), d.metric(t, "outbox_bytes", ""); lag != 0 || size != 0 {
		t.Errorf("still %v s and %v bytes wait", lag, size)
	}
	r.must(d.Check(t.Context()))
	if n := r.said.count("What has ended is not copied"); n != 1 {
		t.Errorf("the outage was told %d times", n)
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestPostgreSQLThatNeverAnswersHoldsUpNothing(t *testing.T) {
	r := newRig(t, maxOutbox)
	url := r.database(server)
	hung := r.copier("one", r.store(strings.Replace(url, server.Address, silent(t), 1)), maxOutbox)
	r.deliver(500)
	r.eventually("it is told", func() error {
		if hung.Check(t.Context()) == nil {
			return errors.New("the check passes")
		}
		return nil
	})
	r.deliver(500)
	begun := time.Now()
	hung.stop()
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it stopped after %v", took)
	}
	r.copier("other", r.store(url), maxOutbox)
	r.complete(url)
}

// link is a way to PostgreSQL on which nothing arrives any more once it is dead, as when a cable is pulled.
type link struct {
	address string
	mu      sync.Mutex
	dead    bool
	ends    []net.Conn
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String()}
	var running sync.WaitGroup
	carry := func(from, to net.Conn) {
		defer func() { _ = to.Close() }()
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			l.mu.Lock()
			dead := l.dead
			l.mu.Unlock()
			if !dead {
				_, _ = to.Write(buffer[:n])
			}
		}
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			l.mu.Lock()
			l.ends = append(l.ends, client, upstream)
			l.mu.Unlock()
			running.Go(func() { carry(client, upstream) })
			running.Go(func() { carry(upstream, client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		for _, end := range l.ends {
			_ = end.Close()
		}
		l.mu.Unlock()
		running.Wait()
	})
	return l
}

func (l *link) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

func TestAConnectionThatDiesSilentlyHoldsUpNeitherDeliveriesNorTheEnd(t *testing.T) {
	r := newRig(t, maxOutbox)
	url := r.database(server)
	l := newLink(t, server.Address)
	store := r.store(strings.Replace(url, server.Address, l.address, 1))
	one := r.copier("one", store, maxOutbox)
	r.deliver(100)
	r.complete(url)
	l.kill()
	r.deliver(100)
	r.eventually("a write hangs", func() error {
		if one.metric(t, "lag_seconds", "") < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	begun := time.Now()
	one.stop()
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it stopped after %v", took)
	}
	begun = time.Now()
	store.Close()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the connections were closed after %v", took)
	}
	r.copier("other", r.store(url), maxOutbox)
	r.complete(url)
}

func TestWhatOverflowsIsCountedAndTold(t *testing.T) {
	const outbox = 30_000
	r := newRig(t, outbox)
	own := postgrestest.ForTest(t)
	url := r.database(own)
	store := r.store(url)
	r.eventually("PostgreSQL is set up", func() error { return store.Ready(t.Context()) })
	own.Stop()
	d := r.copier("one", store, outbox)
	for range 10 {
		r.deliver(100)
	}
	r.eventually("the loss is told", func() error {
		if r.said.count("will be missing from the history") == 0 {
			r.deliver(100)
			return errors.New("not yet")
		}
		return nil
	})
	r.must(own.Restart())
	r.copied()
	ids, _ := r.rows(url)
	lost := int(d.metric(t, "lost_total", ""))
	if lost == 0 || len(ids) == 0 || lost+len(ids) != len(r.made) {
		t.Errorf("of %d, %d were lost and %d are there", len(r.made), lost, len(ids))
	}
	if !ids[r.made[len(r.made)-1]] || ids[r.made[0]] {
		t.Error("those that went were not the oldest")
	}
	if n := r.said.count("will be missing from the history"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

func TestWhatIsTooOldForTheHistoryDoesNotStayInTheOutbox(t *testing.T) {
	r := newRig(t, maxOutbox)
	url := r.database(server)
	d := r.copier("one", r.store(url), maxOutbox)
	monthAgo := history.FirstID(time.Now().AddDate(0, -1, 0))
	r.deliverAs(1, func() string {
		id := uuid.Must(uuid.NewV7())
		copy(id[:6], monthAgo[:6])
		binary.BigEndian.PutUint16(id[6:], 0x7000)
		return id.String()
	})
	old := r.made
	r.made = nil
	r.deliver(1)
	r.complete(url)
	if n := d.metric(t, "copied_total", "expired"); n != 1 {
		t.Errorf("%v were too old, of %v", n, old)
	}
}
