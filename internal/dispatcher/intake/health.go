// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// Check is one thing that must work for the dispatcher to be ready, or Dispensable: then its failure is only told. The
// error is shown to whoever asks: no secrets.
type Check struct {
	Name        string
	Check       func(ctx context.Context) error
	Dispensable bool
}

// checkTimeout bounds all checks of one request; it is below the usual timeout of a kubelet's probe plus its period.
const checkTimeout = 2 * time.Second

func healthy(w http.ResponseWriter, _ *rest.Request) int {
	return rest.Answer(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

const failed = "failed"

type readiness struct {
	Status string        `json:"status"` // ok or unavailable
	Checks []checkResult `json:"checks"`
}

type checkResult struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, failed, or degraded: failed and dispensable
	Error  string `json:"error,omitempty"`
}

// ready serves GET /readyz: 503 until every check passes.
func (h *handler) ready(w http.ResponseWriter, r *rest.Request) int {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	checks := append([]Check{{Name: "routingTable", Check: h.checkTable}}, h.Checks...)
	found := readiness{Status: "ok", Checks: runChecks(ctx, checks)}
	status := http.StatusOK
	for _, c := range found.Checks {
		if c.Status == failed {
			found.Status, status = "unavailable", http.StatusServiceUnavailable
		}
	}
	return rest.Answer(w, status, rest.Marshal(found))
}

func (h *handler) checkTable(context.Context) error {
	if h.Table() != nil {
		return nil
	}
	const loading = "the subscriptions are still being loaded"
	if h.Loading != nil {
		if err := h.Loading(); err != nil {
			return fmt.Errorf(loading+": %w", err)
		}
	}
	return errors.New(loading)
}

// runChecks runs them side by side, so that one that hangs does not take the others' time.
func runChecks(ctx context.Context, checks []Check) []checkResult {
	results := make([]checkResult, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() {
			results[i] = checkResult{Name: c.Name, Status: "ok"}
			if err := c.Check(ctx); err != nil {
				results[i].Status, results[i].Error = failed, err.Error()
				if c.Dispensable {
					results[i].Status = "degraded"
				}
			}
		})
	}
	running.Wait()
	return results
}
