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

	"github.com/redis/go-redis/v9"

	"nexus.io/webhooks/internal/dispatcher/history"
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

// A round trip is repeated once; with two answers lost another one repeats what was to be done.
var losses = map[string]int{"one answer lost": 1, "the answer to the repetition lost too": 2}

// executed lets the answers to the next calls of a script get lost, which Redis knows, so that it executes them.
func (p *proxy) executed(t *testing.T, script *redis.Script, cuts int) {
	t.Helper()
	client, err := Connect("redis://" + p.server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := script.Load(t.Context(), client).Err(); err != nil {
		t.Fatal(err)
	}
	p.lose(script.Hash(), cuts)
}

func TestLostAnswersToSettlementsCountOnce(t *testing.T) {
	for name, cuts := range losses {
		t.Run(name, func(t *testing.T) {
			p, proxy := throughProxy(t)
			q, c := p.run(t, func(_ *Options, c *sink) { c.hold = true })
			configure(t, q, "s1")
			publish(t, q, publication("e1", "s1"))
			eventually(t, "it is in flight", func() bool { return len(c.got()) == 1 })
			proxy.lose(c.got()[0].DeliveryID, cuts)
			c.letGo(Done)
			eventually(t, "the answers are lost", proxy.lost)
			empty(t, q)
			if s := statisticsOf(t, q, "s1"); s.Successful != 1 || s.LatencyCount != 1 || s.Pending != 0 {
				t.Errorf("statistics %+v", s)
			}
			publish(t, q, publication("e2", "s1"))
			empty(t, q)
			if n := counted(t, q.metrics.stale); n != 0 {
				t.Errorf("%v settlements are said to have come too late", n)
			}
			if n := len(c.got()); n != 2 {
				t.Errorf("%d attempts at 2 deliveries: a settlement was not repeated", n)
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
			publish(t, q, publication("e0", "s1"))
			empty(t, q)
			e := publication("e1", "s1")
			proxy.lose(e.Targets[0].DeliveryID, cuts)
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
	e := publication("e1", "s1")
	proxy.lose(e.Targets[0].DeliveryID, 1)
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

// Neither while its deliveries are listed nor at a step does an operation touch one twice, or leave one out.
func TestLostAnswersToAnOperationRepeatNothing(t *testing.T) {
	for name, c := range map[string]struct {
		script *redis.Script
		result Result
		of     history.Status
	}{
		"while it is listed":           {enlistScript, Done, history.Success},
		"at steps that repeat success": {retryNextScript, Done, history.Success},
		"at steps that retry failures": {retryNextScript, Fail, history.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.ForTest(t)
			direct := onServer(t, server)
			const all = 5*operateStep - 1
			q, taken := direct.run(t, func(o *Options, s *sink) {
				o.MaxHistory = 4 * all
				s.ends = func(l Lease) Settlement { return Settlement{Lease: l, Result: c.result} }
			})
			configure(t, q, "s1")
			failedOnce(t, q, all, "s1")
			lossy := startProxy(t, server)
			client, err := Connect("redis://" + lossy.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = client.Close() })
			worker := place{client, direct.prefix, direct.shards}.queue(t, func(o *Options) { o.MaxHistory = 4 * all })
			if c.script == enlistScript {
				lossy.executed(t, c.script, 1)
			} else {
				lossy.executed(t, c.script, 3)
			}
			o := begin1(t, worker, RetryOperation, ofStatus(c.of))
			for range all {
				if !worker.operate(t.Context(), o.ID) && lossy.lost() {
					break
				}
			}
			if !lossy.lost() {
				t.Fatal("too few answers got lost")
			}
			finishedAs(t, q, o.ID, all, 0)
			empty(t, q)
			events := map[string]int{}
			for _, l := range taken.got() {
				events[l.EventID]++
			}
			for id, n := range events {
				if n != 2 {
					t.Errorf("event %s was sent %d times, want 2", id, n)
				}
			}
			audited(t, q)
		})
	}
}

func TestALostAnswerToACancellationIsNoRefusal(t *testing.T) {
	p, proxy := throughProxy(t)
	q, _ := p.run(t, nil)
	limits := open("s1")
	limits.Paused = true
	if err := q.Configure(t.Context(), []Limits{limits}); err != nil {
		t.Fatal(err)
	}
	id := publishMany(t, q, 1, "s1")[0]
	proxy.executed(t, endScript, 1)
	if c, err := q.CancelDelivery(t.Context(), id); err != nil || c.Outcome != Canceled || !proxy.lost() {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := q.CancelDelivery(t.Context(), id); err != nil || c.Outcome != AlreadyEnded {
		t.Errorf("again: %+v %v", c, err)
	}
}

// go-redis' client for Redis Cluster sends a broken call again by itself and tells nobody. Ours must know: what a
// settlement finds done then is its own doing, and no lease that had run out.
func TestLostAnswersOfAClusterAreKnown(t *testing.T) {
	cluster, err := redistest.StartCluster(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Kill)
	node := cluster.Servers[0]
	proxy := startProxy(t, node)
	address := proxy.listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	direct := node.Client()
	defer func() { _ = direct.Close() }()
	if err := direct.ConfigSet(t.Context(), "cluster-announce-port", port).Err(); err != nil {
		t.Fatal(err)
	}
	client, err := Connect("redis://" + address + "," + address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	q, c := place{client, newPrefix(), 4}.run(t, func(_ *Options, c *sink) { c.hold = true })
	configure(t, q, "s5")
	publish(t, q, publication("e1", "s5"))
	eventually(t, "it is in flight", func() bool { return len(c.got()) == 1 })
	proxy.lose(c.got()[0].DeliveryID, 1)
	c.letGo(Done)
	eventually(t, "the answer is lost", proxy.lost)
	empty(t, q)
	publish(t, q, publication("e2", "s5"))
	empty(t, q)
	if s := statisticsOf(t, q, "s5"); s.Successful != 2 {
		t.Errorf("statistics %+v", s)
	}
	if n := counted(t, q.metrics.stale); n != 0 {
		t.Errorf("%v settlements are said to have come too late", n)
	}
}
