package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// proxy stands before a Redis and can lose its answers: the request goes through, then the connection is cut.
type proxy struct {
	listener net.Listener
	server   string

	mu     sync.Mutex
	needle []byte
	cuts   int // how many answers are still to be lost
}

func startProxy(t *testing.T, s *redistest.Server) *proxy {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, server: s.Address}
	t.Cleanup(func() { _ = listener.Close() })
	go p.serve()
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		server, err := dialer.DialContext(context.Background(), "tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		cut := make(chan struct{})
		go p.requests(client, server, cut)
		go p.answers(client, server, cut)
	}
}

// lose lets the answers of the next so many requests that hold the needle get lost.
func (p *proxy) lose(needle string, cuts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.needle, p.cuts = []byte(needle), cuts
}

// lost tells whether all answers that should get lost did.
func (p *proxy) lost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts == 0
}

func (p *proxy) loses(request []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cuts == 0 || !bytes.Contains(request, p.needle) {
		return false
	}
	p.cuts--
	return true
}

func (p *proxy) requests(client, server net.Conn, cut chan struct{}) {
	defer func() { _ = server.Close() }()
	buffer := make([]byte, 1<<20)
	for {
		n, err := client.Read(buffer)
		if p.loses(buffer[:n]) {
			close(cut)
			_, _ = server.Write(buffer[:n])
			_, _ = io.Copy(io.Discard, client) // until answers closes it
			return
		}
		if _, failed := server.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (p *proxy) answers(client, server net.Conn, cut chan struct{}) {
	defer func() { _ = client.Close() }()
	buffer := make([]byte, 1<<20)
	for {
		n, err := server.Read(buffer)
		select {
		case <-cut:
			return
		default:
		}
		if _, failed := client.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func throughProxy(t *testing.T) (place, *proxy) {
	t.Helper()
	proxy := startProxy(t, common)
	client, err := Connect("redis://" + proxy.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return place{client, newPrefix(), 1}, proxy
}

// The client repeats a request once; with two answers lost the queue itself repeats it.
var losses = map[string]int{"one answer lost": 1, "the answer to the repetition lost too": 2}

func TestLostAnswersToSettlementsCountOnce(t *testing.T) {
	for name, cuts := range losses {
		t.Run(name, func(t *testing.T) {
			p, proxy := throughProxy(t)
			q, c := p.run(t, func(_ *Options, c *sink) { c.hold = true })
			configure(t, q, "s1")
			publish(t, q, publication("e1", "s1"))
			eventually(t, "it is in flight", func() bool { return len(c.got()) == 1 })
			proxy.lose(settleScript.Hash(), cuts)
			c.letGo(Done)
			eventually(t, "the answers are lost", proxy.lost)
			empty(t, q)
			if s := statisticsOf(t, q, "s1"); s.Successful != 1 || s.LatencyCount != 1 || s.Pending != 0 {
				t.Errorf("statistics %+v", s)
			}
			publish(t, q, publication("e2", "s1"))
			empty(t, q)
			if n := counted(t, q.metrics.stale); cuts == 2 && n != 0 {
				t.Errorf("%v settlements are said to have come too late", n)
			}
		})
	}
}

func TestLostAnswersToPublishingQueueOnce(t *testing.T) {
	for name, cuts := range losses {
		t.Run(name, func(t *testing.T) {
			p, proxy := throughProxy(t)
			q, c := p.run(t, func(o *Options, _ *sink) { o.LeaseTime = time.Second }) // the lease's answer is lost too
			configure(t, q, "s1")
			publish(t, q, publication("e0", "s1")) // the scripts are known
			empty(t, q)
			proxy.lose(publishScript.Hash(), cuts)
			e := publication("e1", "s1")
			e.Fingerprint = "f"
			receipts, err := q.Publish(t.Context(), []Publication{e})
			if cuts == 1 && (err != nil || receipts[0].Outcome != Queued) {
				t.Errorf("publish: %v %v", receipts, err)
			}
			if cuts == 2 && !errors.Is(err, ErrUnavailable) {
				t.Errorf("publish: %v, want ErrUnavailable", err)
			}
			if got := publish(t, q, e)[0]; got.Outcome != Duplicate || len(got.Targets) != 1 {
				t.Errorf("published again: %+v", got)
			}
			eventually(t, "it is taken", func() bool { return len(c.got()) == 2 })
			empty(t, q)
			if odd := once(c.got()[1:], e); odd != "" {
				t.Errorf("taken %s", odd)
			}
		})
	}
}

// Nobody knows of a lease whose answer is lost: it runs out, and no attempt is counted.
func TestLostAnswersToLeasesComeBack(t *testing.T) {
	p, proxy := throughProxy(t)
	q, c := p.run(t, func(o *Options, _ *sink) { o.LeaseTime = time.Second })
	configure(t, q, "s1")
	publish(t, q, publication("e0", "s1"))
	empty(t, q)
	proxy.lose(publishScript.Hash(), 1) // the round trip that publishes leases too
	e := publication("e1", "s1")
	before := time.Now()
	publish(t, q, e)
	eventually(t, "it is taken", func() bool { return len(c.got()) == 2 })
	empty(t, q)
	if took := time.Since(before); took > 4*time.Second {
		t.Errorf("it took %v, the lease was 1 s", took)
	}
	if got := c.got()[1:]; once(got, e) != "" || got[0].Attempt != 1 {
		t.Errorf("taken %+v", got)
	}
}
