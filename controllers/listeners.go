// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"nexus.io/webhooks/internal/program"
)

// observersTime is what answers under way get at the end.
const observersTime = time.Second

// addListeners serves metrics and probes. controller-runtime would too, but to any number of connections.
func addListeners(mgr ctrl.Manager, options Options) error {
	scrapes := http.NewServeMux()
	scrapes.Handle("/metrics", program.Metrics(metrics.Registry, promhttp.HTTPErrorOnError))
	probes := http.NewServeMux()
	addProbe(probes, "/healthz", "ping", healthz.Ping)
	addProbe(probes, "/readyz", "cache", synced(mgr))
	return errors.Join(
		addListener(mgr, "metrics", options.MetricsAddress, scrapes, options.Logger),
		addListener(mgr, "health probe", options.HealthAddress, probes, options.Logger),
	)
}

// noListener is an address that says that there is to be none.
const noListener = "0"

func addListener(mgr ctrl.Manager, name, address string, handler http.Handler, log *slog.Logger) error {
	if address == noListener {
		return nil
	}
	server := program.NewServer(handler, program.Observers())
	server.Addr = address
	server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // clients that break off, mostly
	atTheEnd := observersTime
	if err := mgr.Add(&manager.Server{Name: name, Server: server, ShutdownTimeout: &atTheEnd}); err != nil {
		return fmt.Errorf("add the %s listener: %w", name, err)
	}
	return nil
}

// addProbe serves a check at a path, and by its name below it.
func addProbe(mux *http.ServeMux, path, name string, check healthz.Checker) {
	handler := http.StripPrefix(path, &healthz.Handler{Checks: map[string]healthz.Checker{name: check}})
	mux.Handle(path, handler)
	mux.Handle(path+"/", handler)
}

func synced(mgr ctrl.Manager) healthz.Checker {
	return func(request *http.Request) error {
		ctx, cancel := context.WithTimeout(request.Context(), readyTimeout)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("subscriptions are not loaded yet")
		}
		return nil
	}
}
