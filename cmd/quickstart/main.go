// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Command quickstart runs the whole service on this machine and shows it at work. `make quickstart` builds what it
// needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"nexus.io/webhooks/internal/quickstart"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second Ctrl-C ends it at once; the kernel then ends what it started.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	o := quickstart.Options{
		Assets: os.Getenv("KUBEBUILDER_ASSETS"), RedisURL: os.Getenv("REDIS_URL"), Output: os.Stdout,
	}
	flags := pflag.NewFlagSet("quickstart", pflag.ContinueOnError)
	o.Bind(flags)
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w; see --help", err)
	}
	return quickstart.Run(ctx, o)
}
