// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures a dispatcher as it ships beside the bare HTTP client, in one run on one machine: deliveries a
// second at fan-out 1 and 10, what they cost, and the time from publish to arrival. Everything is a process of its own
// (API server, etcd, Redis with appendonly, dispatcher, receiver, bare client), on loopback.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	role := "driver"
	if len(os.Args) > 2 && os.Args[1] == "role" {
		role = os.Args[2]
		os.Args = append(os.Args[:1], os.Args[3:]...)
	}
	var err error
	switch role {
	case "receiver":
		err = receive(ctx, os.Args[1])
	case "bare":
		err = bare(ctx, os.Args[1:])
	default:
		var o options
		flag.IntVar(&o.events, "events", 60_000, "deliveries of each throughput stage")
		flag.DurationVar(&o.latency.duration, "latency", latencyDuration, "length of the latency stage")
		flag.StringVar(&o.profile, "profile", "", "write the dispatcher's CPU profile of the fan-out 1 stage to this file")
		flag.Parse()
		err = drive(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
