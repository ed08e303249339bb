// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults breaks one part after another under load, and shows that nothing accepted is lost.
//
// Publishers post numbered events to three dispatchers and note every 202; a receiver notes what it takes. Subscriptions
// are of all kinds: healthy, slow, failing half of the time, and hanging. Each fault ends with a comparison of the two
// notes and with the queue's audit. `-fault-time` is how long each fault lasts: 7 s among the other tests, a minute
// with `make test-faults`.
package faults

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

var (
	cluster   *kube.Cluster
	faultTime = flag.Duration("fault-time", short, "how long each fault lasts")
	spent     time.Duration // on trials; what is built for them is left out
)

const (
	short = 7 * time.Second
	// shortForm bounds all trials with faults that are short: some five minutes on two cores that do nothing else.
	shortForm = 10 * time.Minute
)

// takesTime counts what passes until the test has cleaned up.
func takesTime(t *testing.T) {
	t.Helper()
	if _, err := stack.Binaries(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	t.Cleanup(func() { spent += time.Since(begun) })
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // else controller-runtime asks for one, with a stack trace
	code := kube.Run(m, func(c *kube.Cluster) { cluster = c })
	stack.Cleanup()
	fmt.Printf("trials of %s took %s\n", *faultTime, spent.Round(time.Second))
	if *faultTime <= short && *soakTime == 0 && spent > shortForm {
		fmt.Printf("at most %s is promised\n", shortForm)
		code = 1
	}
	os.Exit(code)
}
