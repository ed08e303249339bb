// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

// operation is what /api/v1/operations/{id} answers, or what began one.
type operation struct {
	OperationID string `json:"operation_id"`
	Status      string
	Matched     int
	Done        int
	Skipped     int
}

// After an outage of an endpoint everything that failed is retried, although the dispatcher that was asked dies at once.
func TestAnOperationGoesOnWhereItsDispatcherDied(t *testing.T) {
	t.Parallel()
	const events = 1000
	s := start(t, 2, "--lease-time=5", "--history-max-per-subscription=2000")
	sub := subscribe(t, s, "again", "/status/500/again", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.Retry = &v1alpha1.RetryPolicy{MaxRetries: new(int32(0))}
		spec.MaxInFlight = new(int32(50))
	})
	p := publish(t.Context(), s, "again", events, time.Millisecond, 0, 1)
	retry := fmt.Sprintf(`{"subscription_id": %q, "status": "failed"`, sub.Status.ID)
	eventually(t, 30*time.Second, "all have failed", func(context.Context) error {
		dry := operate(t, s, 1, "POST", "/api/v1/deliveries/retry", retry+`, "dry_run": true}`, http.StatusOK)
		if dry.Matched != len(p.accepted) {
			return fmt.Errorf("%d of %d", dry.Matched, len(p.accepted))
		}
		return nil
	})
	mended := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec": {"url": %q}}`, s.Receiver.URL+"/ok/again"))
	if err := s.Client.Patch(t.Context(), sub, mended); err != nil {
		t.Fatal(err)
	}
	begun := operate(t, s, 0, "POST", "/api/v1/deliveries/retry", retry+"}", http.StatusAccepted)
	if err := s.Dispatchers[0].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the operation has finished", func(context.Context) error {
		o := operate(t, s, 1, "GET", "/api/v1/operations/"+begun.OperationID, "", http.StatusOK)
		if o.Status != "done" || o.Done != len(p.accepted) || o.Skipped != 0 {
			return fmt.Errorf("%+v", o)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if _, err := s.Receiver.Wait(ctx, "/ok/again", func(l []receiver.Arrival) bool {
		seen := map[string]bool{}
		for _, a := range l {
			seen[a.EventID] = true
		}
		return len(seen) == len(p.accepted)
	}); err != nil {
		t.Error(err)
	}
}

func operate(t *testing.T, s *stack.Stack, dispatcher int, method, path, body string, status int) (o operation) {
	t.Helper()
	r := call(t, s, dispatcher, method, path, body)
	if err := json.Unmarshal([]byte(r.text), &o); err != nil || r.status != status {
		t.Fatalf("%s %s answered %d %s", method, path, r.status, r.text)
	}
	return o
}
