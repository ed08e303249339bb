// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Command manager judges subscriptions and provides their signing keys: it parses its settings, builds the manager of
// package controllers, and runs it until SIGTERM or an interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"nexus.io/webhooks/controllers"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/internal/program"
	"nexus.io/webhooks/internal/settings"
)

// version is set when a release is built.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o := options{}
	if err := o.parse(args, getenv, stdout); err != nil {
		if errors.Is(err, settings.ErrHelp) || errors.Is(err, settings.ErrVersion) {
			return nil
		}
		return err
	}
	config, err := program.KubeConfig(o.kubeconfig, "nexus-webhooks-manager/"+version)
	if err != nil {
		return err
	}
	catalogue, err := event.LoadCatalogue(o.eventTypesFile)
	if err != nil {
		return fmt.Errorf("settings: --event-types-file: %w", err)
	}
	logger := program.NewLogger(stderr, o.logLevel, o.logFormat)
	manager, err := controllers.NewManager(ctx, o.build(config, catalogue, logger))
	if err != nil {
		return err
	}
	logger.InfoContext(ctx, "Starting", "version", version, "eventTypes", len(catalogue.Types()))
	return manager.Run(ctx)
}
