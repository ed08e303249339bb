// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package faults breaks one part after another under load, and shows that nothing accepted is lost.
//
// Publishers post numbered events to three dispatchers and note every 202; a receiver notes what it takes. Subscriptions
// are of all kinds: healthy, slow, failing half of the time, and hanging. Each fault ends with a comparison of the two
// notes and with the queue's audit. `-fault-time` is how long each fault lasts: 8 s among the other tests, a minute
// with `make test-faults`.
package faults

import (
	"flag"
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
	faultTime = flag.Duration("fault-time", 8*time.Second, "how long each fault lasts")
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // else controller-runtime asks for one, with a stack trace
	code := kube.Run(m, func(c *kube.Cluster) { cluster = c })
	stack.Cleanup()
	os.Exit(code)
}
