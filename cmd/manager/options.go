// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"

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
	metricsAddress          string
	healthAddress           string
	logLevel                string
	logFormat               string
}

func (o *options) parse(args []string, getenv func(string) string, help io.Writer) error {
	s := settings.New("manager", "manager judges WebhookSubscriptions and provides their signing keys.")
	s.Group("Kubernetes")
	s.String(&o.kubeconfig, "kubeconfig", "", "",
		"Kubeconfig file. Without it: the files of KUBECONFIG, or else the Pod's ServiceAccount.", nil)
	s.Bool(&o.leaderElection, "leader-elect", "WEBHOOK_MANAGER_LEADER_ELECT", true,
		"Let several managers run, of which one works and the others stand by.")
	s.String(&o.leaderElectionNamespace, "leader-elect-namespace", "WEBHOOK_MANAGER_LEADER_ELECT_NAMESPACE", "",
		"Namespace of the Lease that elects the one. Without it: the Pod's.", nil)
	s.Group("Events")
	s.String(&o.eventTypesFile, "event-types-file", "WEBHOOK_EVENT_TYPES_FILE", "",
		"YAML file with event types beside the built-in ones; give the dispatcher the same.", nil)
	s.Group("Observing")
	s.String(&o.metricsAddress, "metrics-bind-address", "WEBHOOK_MANAGER_METRICS_BIND_ADDRESS", ":8080",
		"Where Prometheus metrics are served; 0 serves none.", checkAddress)
	s.String(&o.healthAddress, "health-probe-bind-address", "WEBHOOK_MANAGER_HEALTH_PROBE_BIND_ADDRESS", ":8081",
		"Where /healthz and /readyz are served; 0 serves none.", checkAddress)
	s.Choice(&o.logLevel, "log-level", "WEBHOOK_LOG_LEVEL", program.Levels, "What is logged at the least.")
	s.Choice(&o.logFormat, "log-format", "WEBHOOK_LOG_FORMAT", program.Formats, "How a line of the log is written.")
	if err := s.Parse(args, getenv, help); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

func checkAddress(text string) error {
	wrong := errors.New("write host:port or :port with a port from 0 to 65535, or 0 for none")
	if text == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return wrong
	}
	if number, err := strconv.Atoi(port); err != nil || number < 0 || number > 65535 {
		return wrong
	}
	return nil
}

func (o *options) build(config *rest.Config, catalogue *event.Catalogue, logger *slog.Logger) controllers.Options {
	return controllers.Options{
		Config:                  config,
		Catalogue:               catalogue,
		Logger:                  logger,
		MetricsAddress:          o.metricsAddress,
		HealthAddress:           o.healthAddress,
		LeaderElection:          o.leaderElection,
		LeaderElectionNamespace: o.leaderElectionNamespace,
	}
}
