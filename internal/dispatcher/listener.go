// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nexus.io/webhooks/internal/program"
)

// listener is a server with the socket that it will serve.
type listener struct {
	name   string
	server *http.Server
	socket net.Listener
}

func (l *listener) serve() error {
	if err := l.server.Serve(l.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the %s on %s: %w", l.name, l.socket.Addr(), err)
	}
	return nil
}

// close ends the server with its connections, and the socket, which a server knows only once it serves. It may be
// repeated.
func (l *listener) close() error {
	err := errors.Join(l.server.Close(), l.socket.Close())
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the %s: %w", l.name, err)
	}
	return nil
}

func (a *App) listen(api, metrics http.Handler) error {
	var err error
	limits := program.ServerLimits{MaxConnections: a.o.MaxConnections}
	if a.api, err = a.open("event API", a.o.ListenAddress, limits, api); err != nil {
		return fmt.Errorf("--listen-address: %w", err)
	}
	if a.metrics, err = a.open("metrics", a.o.MetricsAddress, program.Observers(), metrics); err != nil {
		return fmt.Errorf("--metrics-address: %w", err)
	}
	return nil
}

func (a *App) open(name, address string, limits program.ServerLimits, handler http.Handler) (*listener, error) {
	var config net.ListenConfig
	socket, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	server := program.NewServer(handler, limits)
	server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug) // clients that break off, mostly
	return &listener{name, server, socket}, nil
}

// Address of the event API.
func (a *App) Address() string { return a.api.socket.Addr().String() }

// MetricsAddress of /metrics.
func (a *App) MetricsAddress() string { return a.metrics.socket.Addr().String() }

// observing serves what is for operators alone.
func observing(registry *prometheus.Registry, profiling bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", program.Metrics(registry, promhttp.ContinueOnError)) // Redis away must not hide the others
	if profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
