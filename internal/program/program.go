// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package program holds what every program of the project does alike at its start: making the log, finding the
// Kubernetes API, and bounding what callers may take of a listener. It knows nothing of what the programs do.
package program

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Levels and Formats of a log, the default first.
var (
	Levels  = []string{"info", "debug", "warn", "error"}
	Formats = []string{"json", "text"}
)

// NewLogger makes the log of a program, in one of Levels and Formats, and has the Kubernetes libraries write to it too.
func NewLogger(w io.Writer, level, format string) *slog.Logger {
	var least slog.Level
	_ = least.UnmarshalText([]byte(level)) // what is no level stays info; the settings let none through
	var handler slog.Handler = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least})
	if format == "text" {
		handler = slog.NewTextHandler(w, &slog.HandlerOptions{Level: least})
	}
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetLogger(logr.FromSlogHandler(handler))
	return slog.New(handler)
}

// KubeConfig finds the Kubernetes API: by the kubeconfig file at path, else by the files of KUBECONFIG, else as the
// Pod's ServiceAccount.
func KubeConfig(path, userAgent string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the Kubernetes API (--kubeconfig, KUBECONFIG, or the Pod's ServiceAccount): %w", err)
	}
	config.UserAgent = userAgent
	config.QPS = -1 // the API server shares itself out; the five requests a second that are the default here starve us
	return config, nil
}
