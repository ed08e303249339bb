// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

// What a dispatcher that has delivered, failed and refused something shows passes the checks of `promtool check metrics`.
func TestMetricsAreAsPrometheusWantsThem(t *testing.T) {
	t.Parallel()
	s := start(t, 1)
	subscribe(t, s, "well", "/ok/well", nil)
	subscribe(t, s, "ill", "/status/500/ill", nil)
	for _, project := range []string{"well", "ill"} {
		publish(t.Context(), s, project, 3, time.Millisecond, 0)
		path := map[string]string{"well": "/ok/well", "ill": "/status/500/ill"}[project]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := s.Receiver.Wait(ctx, path, func(l []receiver.Arrival) bool { return len(l) >= 3 }); err != nil {
			t.Fatal(err)
		}
	}
	call(t, s, 0, "POST", "/api/v1/events", `{}`).want(t, http.StatusUnprocessableEntity)
	var metrics stack.Metrics
	eventually(t, 20*time.Second, "attempts are counted", func(ctx context.Context) (err error) {
		metrics, err = s.Dispatchers[0].Metrics(ctx)
		for _, counted := range []string{`nexus_webhook_deliveries_total{event_type="build.completed",status="success"} 3`,
			`nexus_webhook_retries_total{event_type="build.completed"} 3`, `nexus_webhook_status_elected 1`} {
			if err == nil && !bytes.Contains(metrics.Text, []byte(counted)) {
				err = errors.New("no " + counted)
			}
		}
		return err
	})
	problems, err := promlint.New(bytes.NewReader(metrics.Text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
