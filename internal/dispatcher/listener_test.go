// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/settings"
)

// A socket that breaks ends the dispatcher, with an error that says which, and the other socket with it.
func TestAListenerThatBreaksEndsIt(t *testing.T) {
	for name, broken := range map[string]func(*App) *listener{
		"event API": func(a *App) *listener { return a.api },
		"metrics":   func(a *App) *listener { return a.metrics },
	} {
		t.Run(name, func(t *testing.T) {
			var o Options
			o.Bind(settings.New("dispatcher", ""))
			o.ListenAddress, o.MetricsAddress, o.RedisURL = "127.0.0.1:0", "127.0.0.1:0", "redis://127.0.0.1:1"
			o.Kube, o.Logger = &rest.Config{Host: "http://127.0.0.1:1"}, slog.New(slog.DiscardHandler)
			a, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			l := broken(a)
			if err := l.socket.Close(); err != nil {
				t.Fatal(err)
			}
			want := "serve the " + name + " on " + l.socket.Addr().String()
			if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Run: %v, want an error that says %q", err, want)
			}
			for _, address := range []string{a.Address(), a.MetricsAddress()} {
				if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address); err == nil {
					_ = conn.Close()
					t.Errorf("%s is still open", address)
				}
			}
		})
	}
}

// A profile may take longer than other answers.
func TestAProfileTakesItsTime(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.Config = program.NewServer(observing(prometheus.NewRegistry(), true), program.ServerLimits{
		WriteTimeout: 800 * time.Millisecond,
	})
	server.Start()
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/debug/pprof/profile?seconds=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if profile, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || len(profile) == 0 {
		t.Errorf("%d, %d bytes (%v)", response.StatusCode, len(profile), err)
	}
}
