// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dispatcher wires the rooms of a dispatcher: intake takes events, watch keeps the routing table, queue holds
// the deliveries, delivery sends them, reflector writes their statistics into the status.
//
// It promises an orderly life: ready only when an event would reach every subscription, and at its end nothing lost and
// nothing sent twice. It is the only package that knows all of them; what they do is theirs.
package dispatcher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"nexus.io/webhooks/internal/dispatcher/delivery"
	"nexus.io/webhooks/internal/dispatcher/egress"
	"nexus.io/webhooks/internal/dispatcher/intake"
	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/reflector"
	"nexus.io/webhooks/internal/dispatcher/watch"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/routing"
)

// App is one dispatcher.
type App struct {
	o         Options
	log       *slog.Logger
	redis     queue.Client
	queue     *queue.Queue
	watcher   *watch.Watcher
	pool      *delivery.Pool
	reflector *reflector.Reflector
	api       *listener
	metrics   *listener
	checked   chan struct{} // closed once Redis was found to suit
}

// listener is a server with the socket that it will serve.
type listener struct {
	server *http.Server
	socket net.Listener
}

// New builds a dispatcher and opens its sockets, so that their addresses are known; it serves from Run on. Close it
// where Run is not called.
func New(o Options) (*App, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	catalogue, err := event.LoadCatalogue(o.EventTypesFile)
	if err != nil {
		return nil, fmt.Errorf("--event-types-file: %w", err)
	}
	if o.Name == "" {
		o.Name = name()
	}
	a := &App{o: o, log: o.Logger, checked: make(chan struct{})}
	registry := newRegistry(o.Version)
	if err := a.connect(catalogue, registry); err != nil {
		return nil, err
	}
	handler, err := a.intake(catalogue, registry)
	if err != nil {
		return nil, err
	}
	return a, a.listen(handler, observing(registry, o.Profiling))
}

// observing serves what is for operators alone.
func observing(registry *prometheus.Registry, profiling bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // Redis away must not hide the other metrics
	}))
	if profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
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
	if a.redis, err = queue.Connect(a.o.RedisURL); err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	qo := a.o.queueOptions()
	qo.Client, qo.Dispatcher, qo.Logger, qo.Registerer = a.redis, a.o.Name, a.log, registry
	if a.queue, err = queue.New(qo); err != nil {
		return err
	}
	a.watcher, err = watch.New(watch.Options{
		Config: a.o.Kube, Queue: a.queue, Defaults: a.o.Defaults, MaxBacklog: a.o.MaxBacklog, Log: a.log,
	})
	if err != nil {
		return err
	}
	registry.MustRegister(a.watcher.Collector(typeNames(catalogue)))
	a.pool = delivery.NewPool(delivery.Options{
		Routes: routes{a.watcher}, Settler: a.queue, Version: a.o.Version, Logger: a.log, Registerer: registry,
		Transport: egress.NewTransport(egress.Options{
			Policy: egress.Policy{AllowedNetworks: networks}, MaxIdleConns: a.o.MaxInFlight,
		}),
		MaxInFlight: a.o.MaxInFlight, MaxInFlightBytes: a.o.MaxInFlightMB << 20,
		MaxSubscriberLabels: a.o.MetricsSubscriptions,
	})
	a.reflector, err = reflector.New(reflector.Options{
		Config: a.o.Kube, Namespace: a.o.Namespace, Identity: a.o.Name, Queue: a.queue, Subscriptions: a.watcher,
		WritesPerSecond: float64(a.o.StatusWritesPerSec), Log: a.log,
	})
	return err
}

// routes finds a subscription's route in the present table.
type routes struct{ watcher *watch.Watcher }

func (r routes) Route(id string) *routing.Route { return r.watcher.Table().Route(id) }

func (a *App) intake(catalogue *event.Catalogue, registry prometheus.Registerer) (http.Handler, error) {
	return intake.New(intake.Options{
		Publisher: a.queue, Catalogue: catalogue, Registerer: registry, Logger: a.log,
		Table: func() *routing.Table {
			if !a.watcher.Ready() {
				return nil
			}
			return a.watcher.Table()
		},
		Checks: []intake.Check{{Name: "redis", Check: a.checkRedis}},
	})
}

// checkRedis is the readiness of Redis: found to suit, and reachable now.
func (a *App) checkRedis(ctx context.Context) error {
	select {
	case <-a.checked:
	default:
		return errors.New("Redis was not reached yet")
	}
	return a.queue.Ping(ctx)
}

func (a *App) listen(api, metrics http.Handler) error {
	var err error
	if a.api, err = a.open(a.o.ListenAddress, api); err != nil {
		return fmt.Errorf("--listen-address: %w", err)
	}
	if a.metrics, err = a.open(a.o.MetricsAddress, metrics); err != nil {
		_ = a.api.socket.Close()
		return fmt.Errorf("--metrics-address: %w", err)
	}
	return nil
}

func (a *App) open(address string, handler http.Handler) (*listener, error) {
	var config net.ListenConfig
	socket, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	server := intake.NewServer(handler, intake.ServerLimits{MaxConnections: a.o.MaxConnections})
	server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug) // clients that break off, mostly
	return &listener{server, socket}, nil
}

// Address of the event API.
func (a *App) Address() string { return a.api.socket.Addr().String() }

// MetricsAddress of /metrics.
func (a *App) MetricsAddress() string { return a.metrics.socket.Addr().String() }

// Run serves until ctx ends, then stops in order within the drain time and a little more. It returns an error where
// something fatal ended it or something was left undone.
func (a *App) Run(ctx context.Context) error {
	a.log.InfoContext(ctx, "Starting", "version", a.o.Version, "dispatcher", a.o.Name,
		"listenAddress", a.Address(), "metricsAddress", a.MetricsAddress())
	if a.o.PostgresURL != "" {
		a.log.WarnContext(ctx, "POSTGRES_URL is set, but this version keeps no delivery history in PostgreSQL")
	}
	// What must outlast the stop signal: the queue settles what is in flight meanwhile.
	working, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	work := errgroup.Group{}
	a.serve(&work, fail)
	ended := make(chan error, 1)
	go func() {
		err := a.work(serving, working)
		if err != nil {
			fail(err)
		}
		ended <- err
	}()

	<-serving.Done()
	err := a.stop(endWork)
	err = errors.Join(err, <-ended, work.Wait(), a.redis.Close())
	a.log.Info("Stopped", "error", err)
	return err
}

// serve answers HTTP at once, so that probes see what is missing.
func (a *App) serve(group *errgroup.Group, fail context.CancelCauseFunc) {
	for _, l := range []*listener{a.api, a.metrics} {
		group.Go(func() error {
			err := l.server.Serve(l.socket)
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			fail(err)
			return err
		})
	}
}

// work runs the rooms: those that follow the cluster until serving ends, the queue until working ends.
func (a *App) work(serving, working context.Context) error {
	if err := a.checkUntilReached(serving); err != nil {
		return err
	}
	group := errgroup.Group{}
	group.Go(func() error { return a.queue.Run(working, a.pool) })
	group.Go(func() error { return a.watcher.Run(serving) })
	group.Go(func() error { return a.reflector.Run(serving) })
	return group.Wait()
}

const checkAgain = time.Second

// checkUntilReached looks at Redis until it answers. A server that would lose events ends the start.
func (a *App) checkUntilReached(ctx context.Context) error {
	for logged := false; ; logged = true {
		findings, err := a.queue.Check(ctx)
		if err == nil {
			return a.judge(findings)
		}
		if !logged {
			a.log.WarnContext(ctx, "Redis cannot be reached; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
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
		return errors.Join(fatal...)
	}
	close(a.checked)
	return nil
}

// stop ends everything in the order in which nothing is lost: no new leases, no new events, attempts under way, their
// settlements.
func (a *App) stop(endWork context.CancelFunc) error {
	a.log.Info("Stopping", "drainTimeout", a.o.Drain.String())
	drain, cancel := context.WithTimeout(context.Background(), a.o.Drain)
	defer cancel()
	a.queue.StopLeasing()
	err := a.api.server.Shutdown(drain)
	err = errors.Join(err, a.pool.Drain(drain))
	endWork()
	return errors.Join(err, a.metrics.server.Close())
}
