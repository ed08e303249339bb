// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures dispatchers as they ship beside the bare HTTP client, in one run on one machine: deliveries a
// second, what they cost, the time from publish to arrival, and how all of that holds with hanging endpoints, a million
// deliveries that wait, a hundred thousand subscriptions, or several dispatchers. Everything is a process of its own
// (API server, etcd, Redis with appendonly, dispatchers, receiver, bare client), on loopback, with access checks,
// history, statistics and rate limits.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options of a run.
type options struct {
	events    int           // deliveries of each throughput stage
	latency   time.Duration // length of a latency stage
	waiting   int           // deliveries that wait
	many      int           // subscriptions
	only      string        // sections, by commas; empty: all
	profile   string        // what the files for the CPU profiles begin with
	save      string        // file for this run's ratios
	compareTo string        // file with the ratios of an earlier run
}

func parse() options {
	var o options
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	flag.IntVar(&o.events, "events", 60_000, "deliveries of each throughput stage")
	flag.DurationVar(&o.latency, "latency", 15*time.Second, "length of each latency stage")
	flag.IntVar(&o.waiting, "waiting", 1_000_000, "deliveries that wait, in the section waiting")
	flag.IntVar(&o.many, "many", 100_000, "subscriptions, in the section many")
	flag.StringVar(&o.only, "only", "", "run these sections only, by commas: "+strings.Join(names, ", "))
	flag.StringVar(&o.profile, "profile", "",
		"write the dispatcher's CPU profile of each stage of throughput to a file whose name begins so")
	flag.StringVar(&o.save, "save", "", "write the ratios to this file, for --compare")
	flag.StringVar(&o.compareTo, "compare", "", "fail where a ratio is more than 15 % worse than in this file")
	flag.Parse()
	return o
}

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
		err = drive(ctx, parse())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
