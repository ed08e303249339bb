// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"

	"k8s.io/client-go/rest"

	"nexus.io/webhooks/controllers"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/settings"
)

type options struct {
	kubeconfig              string
	eventTypesFile          string
	leaderElection          bool
	leaderElectionNamespace string
	watchNamespaces         string
	metricsAddress          string
	healthAddress           string
	logLevel                string
	logFormat               string
}

func (o *options) parse(args []string, getenv func(string) string, help io.Writer) error {
	if err := o.settings().Parse(args, getenv, help); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

func (o *options) settings() *settings.Set {
	s := settings.New("manager",
		"manager judges WebhookSubscriptions, says so in their conditions, and provides their signing keys.")
	s.Version = version
	s.Group("Kubernetes")
	s.String(&o.kubeconfig, "kubeconfig", "", "",
		"Kubeconfig `FILE`. Without it: the files of KUBECONFIG, or else the Pod's ServiceAccount.", nil)
	s.Bool(&o.leaderElection, "leader-elect", "WEBHOOK_MANAGER_LEADER_ELECT", true,
		"Let several managers run, of which one works and the others stand by.")
	s.String(&o.leaderElectionNamespace, "leader-elect-namespace", "WEBHOOK_MANAGER_LEADER_ELECT_NAMESPACE", "",
		"`NAMESPACE` of the Lease that elects the one. Without it: the Pod's.", nil)
	s.String(&o.watchNamespaces, "watch-namespaces", "WEBHOOK_WATCH_NAMESPACES", "",
		"`NAMESPACES`, by commas, whose subscriptions are judged, with Roles in each of them; without it all, with a "+
			"ClusterRole. Give the dispatcher the same.", program.CheckNamespaces)
	s.Group("Events")
	s.String(&o.eventTypesFile, "event-types-file", "WEBHOOK_EVENT_TYPES_FILE", "",
		"YAML `FILE` with event types beside the built-in ones (eventTypes: [{type, category, description}]); give the "+
			"dispatcher the same.", nil)
	s.Group("Observing")
	s.String(&o.metricsAddress, "metrics-bind-address", "WEBHOOK_MANAGER_METRICS_BIND_ADDRESS", ":8080",
		"`HOST:PORT` of the Prometheus metrics at /metrics; 0 serves none.", checkAddress)
	s.String(&o.healthAddress, "health-probe-bind-address", "WEBHOOK_MANAGER_HEALTH_PROBE_BIND_ADDRESS", ":8081",
		"`HOST:PORT` of the probes /healthz and /readyz; 0 serves none.", checkAddress)
	s.Choice(&o.logLevel, "log-level", "WEBHOOK_LOG_LEVEL", program.Levels, "What is logged at the least.")
	s.Choice(&o.logFormat, "log-format", "WEBHOOK_LOG_FORMAT", program.Formats, "How a line of the log is written.")
	return s
}

func checkAddress(text string) error {
	if text == "0" {
		return nil
	}
	if err := settings.HostPort(text); err != nil {
		return fmt.Errorf("%w, or 0 for none", err)
	}
	return nil
}

func (o *options) build(config *rest.Config, catalogue *event.Catalogue, logger *slog.Logger) controllers.Options {
	namespaces, _ := program.Namespaces(o.watchNamespaces) // checked as it was parsed
	return controllers.Options{
		Config:                  config,
		Catalogue:               catalogue,
		Namespaces:              namespaces,
		Logger:                  logger,
		MetricsAddress:          o.metricsAddress,
		HealthAddress:           o.healthAddress,
		LeaderElection:          o.leaderElection,
		LeaderElectionNamespace: o.leaderElectionNamespace,
	}
}
