// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Command dispatcher takes events, queues and sends them: it parses its settings, builds the App of package dispatcher,
// and runs it until SIGTERM or an interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/settings"
)

// version is set when a release is built.
var version = "unknown"

// gcPercent trades memory, of which a dispatcher's live heap takes little, for the CPU that marking takes. GOGC and
// GOMEMLIMIT override it as usual.
const gcPercent = 400

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dispatcher:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	var o dispatcher.Options
	s := settings.New("dispatcher", "dispatcher takes events and sends them to the subscriptions that want them.")
	s.Version = version
	o.Bind(s)
	if err := s.Parse(args, getenv, stdout); err != nil {
		if errors.Is(err, settings.ErrHelp) || errors.Is(err, settings.ErrVersion) {
			return nil
		}
		return fmt.Errorf("settings: %w", err)
	}
	kube, err := program.KubeConfig(o.Kubeconfig, "nexus-webhooks-dispatcher/"+version)
	if err != nil {
		return err
	}
	o.Kube, o.Version, o.Logger = kube, version, program.NewLogger(stderr, o.LogLevel, o.LogFormat)
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	app, err := dispatcher.New(o)
	if err != nil {
		return err
	}
	return app.Run(ctx)
}
