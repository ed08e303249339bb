// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/routing"
)

// Routes finds the route of a subscription, nil if there is none.
type Routes interface {
	Route(subscriptionID string) *routing.Route
}

// Settler takes the ends of leases. Settle must not block.
type Settler interface {
	Settle(queue.Settlement)
}

// Options of a Pool. A zero field takes the default that is named with it.
type Options struct {
	Routes    Routes            // required
	Settler   Settler           // required
	Transport http.RoundTripper // required; see NewSender
	Version   string            // of this program, for User-Agent: "dev"
	// MaxInFlight bounds the attempts that run at once: 1,024.
	MaxInFlight int
	// MaxInFlightBytes bounds the sum of their bodies: 64 MiB.
	MaxInFlightBytes int
	// MaxSubscriberLabels bounds the subscriptions that have a latency histogram of their own: 1,000.
	MaxSubscriberLabels int
	Logger              *slog.Logger          // slog.Default()
	Registerer          prometheus.Registerer // required
}

// Pool runs the attempts for the leases that it is given. It is the queue's consumer.
type Pool struct {
	Options
	sender  *Sender
	metrics *metrics
	log     *attemptLog

	attempts context.Context // of all attempts: a lease comes without a caller whose context could end it
	cutOff   context.CancelFunc

	mu        sync.Mutex
	inFlight  int // leases that take room
	bytes     int
	unsettled int // leases that were not settled yet, a little longer than they take room
	draining  bool
	drained   chan struct{} // closed when draining and nothing is unsettled
}

// NewPool returns a pool that is ready to take leases.
func NewPool(o Options) *Pool {
	o.Version = cmp.Or(o.Version, "dev")
	o.MaxInFlight = cmp.Or(o.MaxInFlight, 1024)
	o.MaxInFlightBytes = cmp.Or(o.MaxInFlightBytes, 64<<20)
	o.MaxSubscriberLabels = cmp.Or(o.MaxSubscriberLabels, 1000)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	p := &Pool{
		Options: o,
		sender:  NewSender(o.Transport, o.Version),
		log:     newAttemptLog(o.Logger),
		drained: make(chan struct{}),
	}
	p.metrics = newMetrics(o.Registerer, p)
	p.attempts, p.cutOff = context.WithCancel(context.Background())
	return p
}

// Room says how many deliveries and bytes of bodies more the pool takes now.
func (p *Pool) Room() (deliveries, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return 0, 0
	}
	return max(0, p.MaxInFlight-p.inFlight), max(0, p.MaxInFlightBytes-p.bytes)
}

// Take starts an attempt for every lease and returns at once. What comes while the pool drains is given back. A
// goroutine for each costs no more than handing leases to standing ones (measured), and an idle pool has none.
func (p *Pool) Take(leases []queue.Lease) {
	if !p.admit(leases) {
		for _, lease := range leases {
			p.Settler.Settle(queue.Settlement{Lease: lease, Result: queue.Release})
		}
		return
	}
	for _, lease := range leases {
		go p.run(lease)
	}
}

func (p *Pool) admit(leases []queue.Lease) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return false
	}
	p.inFlight += len(leases)
	p.unsettled += len(leases)
	for _, lease := range leases {
		p.bytes += len(lease.Body)
	}
	return true
}

func (p *Pool) run(lease queue.Lease) {
	settlement := p.attempt(lease)
	p.leave(lease)
	p.Settler.Settle(settlement)
	p.settled()
}

// leave frees the lease's room. It comes before the settlement, which makes the queue ask for room.
func (p *Pool) leave(lease queue.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight--
	p.bytes -= len(lease.Body)
}

func (p *Pool) settled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsettled--
	if p.draining && p.unsettled == 0 {
		close(p.drained)
	}
}

// attempt sends the lease's delivery if it may be sent now, and says what becomes of it.
func (p *Pool) attempt(lease queue.Lease) queue.Settlement {
	if !time.Now().Before(lease.Deadline) {
		p.metrics.stale.Inc()
		p.log.stale(lease)
		return queue.Settlement{Lease: lease, Result: queue.Release}
	}
	route := p.Routes.Route(lease.SubscriptionID)
	if !sendable(route) {
		p.metrics.held.Inc()
		return queue.Settlement{Lease: lease, Result: queue.Release, RetryAfter: releaseDelay}
	}
	exchange := p.sender.Send(p.attempts, route, lease)
	settlement := settlementOf(lease, route.Retry, exchange, jitterOf(lease.DeliveryID))
	settlement.Attempt = packed(route, settlement, exchange)
	p.metrics.observe(settlement)
	p.log.attempt(route, settlement)
	return settlement
}

// sendable tells whether deliveries of the route go out at present. The queue soon hears of a route that does not.
func sendable(route *routing.Route) bool {
	return route != nil && route.Active && !route.Paused && route.Hold == "" && len(route.Keys) > 0
}

// Drain takes nothing more and waits until every lease is settled. When ctx ends first, the attempts that still run are
// cut off and settled as retries, and the error says how many. Call it once.
func (p *Pool) Drain(ctx context.Context) error {
	defer p.cutOff()
	p.stopTaking()
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
	}
	running, _ := p.occupied()
	p.cutOff()
	<-p.drained
	return fmt.Errorf("drain deliveries: %d attempts cut off: %w", running, context.Cause(ctx))
}

func (p *Pool) stopTaking() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	if p.unsettled == 0 {
		close(p.drained)
	}
}

func (p *Pool) occupied() (deliveries, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight, p.bytes
}
