// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/test/postgrestest"
)

// silent accepts connections and never answers.
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

// readiness waits until /readyz answers 200 and says this of the history.
func (a *app) readiness(want string) {
	a.r.Helper()
	eventually(a.r.T, "the history is "+want, func() error {
		status, body, err := get("http://" + a.Address() + "/readyz")
		if err == nil && (status != http.StatusOK || !strings.Contains(body, `"history","status":"`+want+`"`)) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

func TestPostgreSQLThatNeverAnswersHoldsUpNeitherDeliveriesNorTheEnd(t *testing.T) {
	const password = "password-that-nobody-may-print"
	r := newRig(t)
	r.subscribe("hung", "/ok/hung", nil)
	a := r.start(func(o *dispatcher.Options) { o.PostgresURL = "postgres://nexus:" + password + "@" + silent(t) + "/x" })
	a.ready()
	const events = 50
	begun := time.Now()
	for i := range events {
		a.accepted("hung", fmt.Sprintf("hung-%d", i))
	}
	r.arrived("/ok/hung", events)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("delivering took %v", took)
	}
	a.readiness("degraded")
	if err := a.expect("/api/v1/deliveries", http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"nexus_webhook_history_lag_seconds", "nexus_webhook_history_outbox_bytes"} {
		if metrics := a.metrics(); !strings.Contains(metrics, "\n"+name) || strings.Contains(metrics, "\n"+name+" 0\n") {
			t.Errorf("the metrics do not say by %s what waits", name)
		}
	}
	eventually(t, "it is told", func() error { return r.log.has("Delivery history is not available") })
	begun = time.Now()
	r.must(a.stop())
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it stopped after %v", took)
	}
	if strings.Contains(r.log.String(), password) {
		t.Error("the log shows the password")
	}
}

func TestTheHistoryIsCopiedAndRead(t *testing.T) {
	r := newRig(t)
	server := postgrestest.ForTest(t)
	url, err := server.Database(t.Context())
	r.must(err)
	r.subscribe("long", "/ok/long", nil)
	a := r.start(func(o *dispatcher.Options) { o.PostgresURL, o.HistoryMax = url, 1 })
	a.ready()
	for i := range 3 {
		a.accepted("long", fmt.Sprintf("long-%d", i))
	}
	r.arrived("/ok/long", 3)
	eventually(t, "all is copied", func() error {
		if !strings.Contains(a.metrics(), `nexus_webhook_history_copied_total{result="stored"} 3`) {
			return errors.New("not all is stored")
		}
		return a.expect("/api/v1/events/long-0", http.StatusOK)
	})
	a.readiness("ok")
	server.Stop()
	a.accepted("long", "long-3")
	r.arrived("/ok/long", 4)
	a.readiness("degraded")
	r.must(server.Restart())
	a.readiness("ok")
	r.must(a.expect("/api/v1/events/long-3", http.StatusOK))
	r.must(a.stop())
}
