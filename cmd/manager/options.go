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

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"nexus.io/webhooks/controllers"
	"nexus.io/webhooks/internal/event"
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
	s.Choice(&o.logLevel, "log-level", "WEBHOOK_LOG_LEVEL", []string{"info", "debug", "warn", "error"},
		"What is logged at the least.")
	s.Choice(&o.logFormat, "log-format", "WEBHOOK_LOG_FORMAT", []string{"json", "text"}, "How a line of the log is written.")
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

func (o *options) connect() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the Kubernetes API (--kubeconfig, KUBECONFIG, or the Pod's ServiceAccount): %w", err)
	}
	config.UserAgent = "nexus-webhooks-manager/" + version
	return config, nil
}

// logger makes the log, and has the libraries write to it too.
func (o *options) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(o.logLevel)) // parse lets only levels through
	var handler slog.Handler = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
	if o.logFormat == "text" {
		handler = slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetLogger(logr.FromSlogHandler(handler))
	return slog.New(handler)
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
