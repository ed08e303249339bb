// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"github.com/prometheus/client_golang/prometheus"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// Mounted are the routes that a dispatcher serves.
func (a *App) Mounted() ([]rest.Route, error) {
	return a.routes(event.Builtin(), prometheus.NewRegistry())
}
