// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

// stageTimeout bounds one stage; a slow machine needs it whole for a million deliveries.
const stageTimeout = 10 * time.Minute

// bench is what all sections share.
type bench struct {
	options
	dir, self, bin string
	cluster        *kube.Cluster
	kube           client.Client
	kubeconfig     string
	token          string // of a publisher
	receiver       *stack.Process
	rigs           int // started so far
	crowd          int // subscriptions of that kind
	lines          []line
}

// section is a group of figures that need the same things to run.
type section struct {
	name, about string
	run         func(context.Context, *bench) error
}

// sections in the order in which they run: the last ones leave much behind in the API server.
var sections = []section{
	{"throughput", "deliveries a second and their cost, beside the bare client", throughput},
	{"latency", "publish to arrival, also beside endpoints that hang, fail or are slow", latency},
	{"scale", "the cost of a delivery with more dispatchers and more Redis masters", scale},
	{"waiting", "the same rate while a million deliveries wait", waiting},
	{"idle", "what 10,000 subscriptions cost while nothing happens", idle},
	{"many", "a hundred thousand subscriptions", many},
}

func drive(ctx context.Context, o options) error {
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	var before baseline
	if o.compareTo != "" {
		if before, err = readBaseline(o.compareTo); err != nil {
			return fmt.Errorf("--compare: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "nexus-webhooks-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{options: o, dir: dir}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	err = b.runSections(ctx, chosen)
	b.report() // what was measured before a section failed, too
	if err != nil {
		return err
	}
	return b.guard(before)
}

func (b *bench) runSections(ctx context.Context, chosen []section) error {
	for _, s := range chosen {
		say("%s: %s", s.name, s.about)
		if err := s.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func choose(only string) ([]section, error) {
	if only == "" {
		return sections, nil
	}
	var chosen []section
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--only: there is no section %q", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}

func (b *bench) start(ctx context.Context) error {
	say("Starting API server and receiver")
	var err error
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if b.bin, err = stack.Binaries(); err != nil {
		return err
	}
	if b.cluster, err = kube.Start(); err != nil {
		return err
	}
	if b.kube, err = stack.NewClient(b.cluster.Config); err != nil {
		return err
	}
	b.kubeconfig = filepath.Join(b.dir, "kubeconfig")
	if err := stack.WriteKubeconfig(b.cluster.Config, b.kubeconfig); err != nil {
		return err
	}
	if b.token, err = b.publisherToken(ctx); err != nil {
		return err
	}
	if err := b.makeKey(ctx, "default"); err != nil {
		return err
	}
	address, err := stack.FreeAddress()
	if err != nil {
		return err
	}
	b.receiver = stack.NewProcess("receiver", filepath.Join(b.dir, "receiver.log"), b.self, "role", "receiver", address)
	b.receiver.URL = "http://" + address
	b.receiver.MetricsURL = b.receiver.URL
	return b.receiver.Start()
}

func (b *bench) stop() {
	if b.receiver != nil {
		b.receiver.Kill()
	}
	if b.cluster != nil {
		_ = b.cluster.Stop()
	}
	stack.Cleanup()
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
