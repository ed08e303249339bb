// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dispatcher wires the rooms of a dispatcher: intake takes events, watch keeps the routing table, queue holds
// the deliveries, delivery sends them, reflector writes their statistics into the status.
//
// It promises an orderly life: ready only when an event would reach every subscription, and at its end nothing lost and
// nothing sent twice. It is the only package that knows all of them; what they do is theirs.
package dispatcher

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"nexus.io/webhooks/internal/dispatcher/access"
	"nexus.io/webhooks/internal/dispatcher/apidocs"
	"nexus.io/webhooks/internal/dispatcher/copier"
	"nexus.io/webhooks/internal/dispatcher/deliveries"
	"nexus.io/webhooks/internal/dispatcher/delivery"
	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
	"nexus.io/webhooks/internal/dispatcher/intake"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/reflector"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/dispatcher/stats"
	"nexus.io/webhooks/internal/dispatcher/subscriptions"
	"nexus.io/webhooks/internal/dispatcher/trial"
	"nexus.io/webhooks/internal/dispatcher/watch"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/routing"
)

// App is one dispatcher.
type App struct {
	o         Options
	log       *slog.Logger
	redis     queue.Client
	queue     *queue.Queue
	clock     *clock
	history   *postgres.Store // nil where there is none but that of the queue, as copier
	copier    *copier.Copier
	watcher   *watch.Watcher
	transport *egress.Transport
	pool      *delivery.Pool
	reflector *reflector.Reflector
	api       *listener
	metrics   *listener
	checked   chan struct{} // closed once Redis was found to suit
}

// New builds a dispatcher and opens its sockets, so that their addresses are known; it serves from Run on. Close it
// where Run is not called.
func New(o Options) (*App, error) {
	if o.Kube == nil {
		return nil, errors.New("a dispatcher needs the way to the Kubernetes API")
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = name()
	}
	a := &App{o: o, log: cmp.Or(o.Logger, slog.Default()), checked: make(chan struct{})}
	if err := a.build(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *App) build() error {
	catalogue, err := event.LoadCatalogue(a.o.EventTypesFile)
	if err != nil {
		return fmt.Errorf("--event-types-file: %w", err)
	}
	registry := newRegistry(a.o.Version)
	if err := a.connect(catalogue, registry); err != nil {
		return err
	}
	routes, err := a.routes(catalogue, registry)
	if err != nil {
		return err
	}
	authenticator, err := a.authenticator(registry)
	if err != nil {
		return err
	}
	handler := rest.Handler(routes, rest.HandlerOptions{
		Authenticator: authenticator, Observe: rest.Durations(registry), Logger: a.log,
	})
	return a.listen(handler, observing(registry, a.o.Profiling))
}

func (a *App) authenticator(registry prometheus.Registerer) (rest.Authenticator, error) {
	switch a.o.Auth {
	case AuthNone:
		return rest.Anybody{}, nil
	case AuthKubernetes:
	default:
		return nil, fmt.Errorf("--auth: %q is neither %s nor %s", a.o.Auth, AuthNone, AuthKubernetes)
	}
	return access.New(access.Options{
		Config: a.o.Kube, Audience: a.o.AuthAudience, Fresh: a.o.AuthCache, Outage: a.o.AuthOutage,
		Registerer: registry, Logger: a.log,
	})
}

// Close gives back what New opened. Run does it by itself.
func (a *App) Close() error {
	var errs []error
	for _, l := range []*listener{a.api, a.metrics} {
		if l != nil {
			errs = append(errs, l.close())
		}
	}
	if a.transport != nil {
		a.transport.CloseIdleConnections()
	}
	if a.history != nil {
		a.history.Close()
	}
	if a.redis != nil {
		errs = append(errs, a.redis.Close())
	}
	return errors.Join(errs...)
}

func typeNames(catalogue *event.Catalogue) []string {
	var names []string
	for _, t := range catalogue.Types() {
		names = append(names, t.Type)
	}
	return names
}

// name makes a replica's name that no other has, also after a restart in the same Pod.
func name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "dispatcher"
	}
	return host + "-" + strings.ToLower(rand.Text()[:6])
}

func newRegistry(version string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "nexus_webhook_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// connect builds everything behind the API.
func (a *App) connect(catalogue *event.Catalogue, registry prometheus.Registerer) error {
	networks, err := parseNetworks(a.o.EgressNetworks)
	if err != nil {
		return fmt.Errorf("--egress-allow-networks: %w", err)
	}
	if a.redis, err = queue.ConnectFor(a.o.RedisURL, a.o.Shards); err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	qo := a.o.queueOptions()
	qo.Client, qo.Dispatcher, qo.Logger, qo.Registerer = a.redis, a.o.Name, a.log, registry
	if err := a.openHistory(); err != nil {
		return err
	}
	if a.history != nil {
		qo.Archive = a.history
	}
	if a.queue, err = queue.New(qo); err != nil {
		return err
	}
	a.clock = newClock(a.queue.Time, registry, a.log)
	if a.history != nil {
		a.copier = copier.New(copier.Options{Queue: a.queue, Store: a.history, Registerer: registry, Logger: a.log})
	}
	namespaces, err := program.Namespaces(a.o.WatchNamespaces)
	if err != nil {
		return fmt.Errorf("--watch-namespaces: %w", err)
	}
	a.watcher, err = watch.New(watch.Options{
		Namespaces: namespaces, RequireGrants: a.o.RequireGrant,
		Config: a.o.Kube, Queue: a.queue, Defaults: a.o.Defaults, MaxBacklog: a.o.MaxBacklog, Log: a.log,
		CompareEvery: a.o.CompareEvery, ConfirmAfter: a.o.ConfirmAfter, QueueUsable: a.checked,
	})
	if err != nil {
		return err
	}
	registry.MustRegister(a.watcher.Collector(typeNames(catalogue)))
	a.transport = egress.NewTransport(egress.Options{
		Policy: egress.Policy{AllowedNetworks: networks}, MaxIdleConns: a.o.MaxInFlight,
	})
	a.pool = delivery.NewPool(delivery.Options{
		Routes: routes{a.watcher}, Settler: a.queue, Version: a.o.Version, Logger: a.log, Registerer: registry,
		Transport: a.transport, MaxInFlight: a.o.MaxInFlight, MaxInFlightBytes: a.o.MaxInFlightMB << 20,
		MaxSubscriberLabels: a.o.MetricsSubscriptions,
	})
	a.reflector, err = reflector.New(reflector.Options{
		Config: a.o.Kube, Namespace: a.o.Namespace, Identity: a.o.Name, Queue: a.queue, Subscriptions: a.watcher,
		WritesPerSecond: float64(a.o.StatusWritesPerSec), Registerer: registry, Log: a.log,
	})
	return err
}

func (a *App) openHistory() (err error) {
	if a.o.PostgresURL == "" {
		return nil
	}
	a.history, err = postgres.Open(postgres.Options{
		URL: a.o.PostgresURL, RetentionDays: a.o.HistoryRetentionDays, Log: a.log,
	})
	if err != nil {
		return fmt.Errorf("POSTGRES_URL: %w", err)
	}
	return nil
}

// routes finds subscriptions' routes in the present table.
type routes struct{ watcher *watch.Watcher }

func (r routes) Route(id string) *routing.Route { return r.watcher.Table().Route(id) }

func (r routes) All() iter.Seq[*routing.Route] { return r.watcher.Table().All() }

// routes are those of all rooms that serve HTTP.
func (a *App) routes(catalogue *event.Catalogue, registry prometheus.Registerer) ([]rest.Route, error) {
	events, err := a.intake(catalogue, registry)
	if err != nil {
		return nil, err
	}
	subs, err := subscriptions.New(subscriptions.Options{
		Config: a.o.Kube, Cache: a.watcher, Catalogue: catalogue, Namespace: a.o.DefaultNamespace,
		RateLimit: a.o.Defaults.RatePerMinute, Logger: a.log,
	})
	if err != nil {
		return nil, err
	}
	trials, err := trial.New(trial.Options{
		Table: a.table, Transport: a.transport, Version: a.o.Version, Catalogue: catalogue,
		Timeout: a.o.Defaults.Timeout, Namespace: a.o.DefaultNamespace,
	})
	if err != nil {
		return nil, err
	}
	docs, err := apidocs.New(a.o.Version)
	return slices.Concat(events, subs, a.deliveries(), stats.New(a.queue, a.table, a.log), trials, docs), err
}

func (a *App) deliveries() []rest.Route {
	var archive deliveries.Archive
	if a.history != nil {
		archive = a.history
	}
	return deliveries.New(a.queue, archive, routes{a.watcher}, a.log)
}

// table is the routing table once it is complete, nil before.
func (a *App) table() *routing.Table {
	if !a.watcher.Ready() {
		return nil
	}
	return a.watcher.Table()
}

func (a *App) intake(catalogue *event.Catalogue, registry prometheus.Registerer) ([]rest.Route, error) {
	checks := []intake.Check{{Name: "redis", Check: a.checkRedis}}
	if a.copier != nil {
		checks = append(checks, intake.Check{Name: "history", Check: a.copier.Check, Dispensable: true})
	}
	return intake.New(intake.Options{
		Publisher: a.queue, Catalogue: catalogue, Registerer: registry, Logger: a.log,
		Table:   a.table,
		Loading: a.watcher.Trouble,
		Checks:  checks,
	})
}

// checkRedis is the readiness of Redis: found to suit, and reachable now.
func (a *App) checkRedis(ctx context.Context) error {
	select {
	case <-a.checked:
	default:
		return errors.New("not reached yet, or not found to suit")
	}
	return a.queue.Ping(ctx)
}

// Run serves until ctx ends, then stops in order within the drain time and a little more. It returns an error where
// something fatal ended it or something was left undone.
func (a *App) Run(ctx context.Context) error {
	a.log.InfoContext(ctx, "Starting", "version", a.o.Version, "dispatcher", a.o.Name,
		"listenAddress", a.Address(), "metricsAddress", a.MetricsAddress())
	// What must outlast the stop signal: the queue settles what is in flight meanwhile.
	working, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	group := &failing{fail: fail}
	for _, l := range []*listener{a.api, a.metrics} {
		group.run(l.serve) // at once, so that probes see what is missing
	}
	group.run(func() error { return a.work(serving, working, group) })

	<-serving.Done()
	err := a.stop(endWork)
	err = errors.Join(err, group.Wait(), a.Close())
	if err == nil {
		a.log.Info("Stopped")
	}
	return err
}

// failing is goroutines of which none may end with an error before all are told to end: then all are.
type failing struct {
	errgroup.Group
	fail context.CancelCauseFunc
}

func (g *failing) run(do func() error) {
	g.Go(func() error {
		err := do()
		if err != nil {
			g.fail(err)
		}
		return err
	})
}

// work runs the rooms: those that follow the cluster until serving ends, the queue until working ends.
func (a *App) work(serving, working context.Context, group *failing) error {
	group.run(func() error { return a.watcher.Run(serving) }) // before Redis, so that either's absence is told
	if a.history != nil {
		group.run(func() error { a.history.Run(working); return nil })
	}
	suits, err := a.checkUntilReached(serving)
	if err != nil || !suits {
		return err
	}
	group.run(func() error {
		if !a.awaitTable(serving) { // without it, every lease would be given back
			return nil
		}
		return a.queue.Run(working, a.pool)
	})
	group.run(func() error { return a.reflector.Run(serving) })
	group.run(func() error { a.clock.run(serving); return nil })
	if a.copier != nil {
		group.run(func() error { a.copier.Run(working); return nil })
	}
	return nil
}

const lookForTable = 20 * time.Millisecond

// awaitTable returns once the routing table is complete, false if ctx ended first.
func (a *App) awaitTable(ctx context.Context) bool {
	tick := time.NewTicker(lookForTable)
	defer tick.Stop()
	for !a.watcher.Ready() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

const (
	checkAgain    = time.Second
	complainEvery = time.Minute
)

// checkUntilReached looks at Redis until it answers, false if ctx ended first. A server that would lose events is an
// error, which ends the start.
func (a *App) checkUntilReached(ctx context.Context) (bool, error) {
	complain := rate.Sometimes{Interval: complainEvery}
	for {
		findings, err := a.queue.Check(ctx)
		if err == nil {
			return true, a.judge(findings)
		}
		if ctx.Err() == nil {
			complain.Do(func() {
				a.log.WarnContext(ctx, "Redis cannot be reached or refuses; trying again until it answers", "error", err)
			})
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(checkAgain):
		}
	}
}

func (a *App) judge(findings []queue.Finding) error {
	var fatal []error
	for _, f := range findings {
		if f.Fatal {
			fatal = append(fatal, errors.New(f.Message))
			continue
		}
		a.log.Warn("Redis could suit better", "finding", f.Message)
	}
	if len(fatal) > 0 {
		return fmt.Errorf("the Redis of REDIS_URL does not suit: %w", errors.Join(fatal...))
	}
	close(a.checked)
	return nil
}

// stop ends everything in the order in which nothing is lost: no new leases, no new events, attempts under way, their
// settlements. Metrics are served to the end.
func (a *App) stop(endWork context.CancelFunc) error {
	a.log.Info("Stopping", "drainTimeout", a.o.Drain.String())
	drain, cancel := context.WithTimeout(context.Background(), a.o.Drain)
	defer cancel()
	a.queue.StopLeasing()
	if err := a.api.server.Shutdown(drain); err != nil {
		// Whoever is cut off was told nothing, so nothing that was accepted is lost.
		a.log.Warn("Publishers that took too long are cut off", "error", err)
	}
	err := errors.Join(a.api.close(), a.pool.Drain(drain))
	endWork()
	return errors.Join(err, a.metrics.close())
}
