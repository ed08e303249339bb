// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/rest"
)

func (f *fixture) leader() string {
	lease := &coordinationv1.Lease{}
	if err := f.client.Get(f.ctx, f.key(LeaderElectionID), lease); err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func (f *fixture) waitForLeader(other string) string {
	f.t.Helper()
	f.eventually("a leader", func() error {
		if leader := f.leader(); leader == "" || leader == other {
			return fmt.Errorf("the leader is %q", leader)
		}
		return nil
	})
	return f.leader()
}

func TestOneOfTwoManagersWorksAndTheOtherTakesOver(t *testing.T) {
	f := newFixture(t)
	elected := Options{LeaderElection: true, LeaderElectionNamespace: f.namespace}
	stop := f.start(elected)
	first := f.waitForLeader("")
	f.start(elected)
	f.create(f.subscription("a"))
	f.waitReady("a")
	if now := f.leader(); now != first {
		t.Errorf("the leader moved from %s to %s though it works", first, now)
	}

	stop()
	f.waitForLeader(first)
	f.create(f.subscription("b"))
	f.waitReady("b")
	if log := f.log.String(); strings.Contains(log, "is forbidden") {
		t.Errorf("config/rbac allows too little:\n%s", log)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	return listener.Addr().String()
}

func (f *fixture) fetch(url string) (string, error) {
	request, err := http.NewRequestWithContext(f.ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), nil
}

func TestProbesAndMetricsAnswer(t *testing.T) {
	f := newFixture(t)
	health, metrics := freeAddress(t), freeAddress(t)
	f.start(Options{HealthAddress: health, MetricsAddress: metrics})
	for _, path := range []string{"/healthz", "/readyz"} {
		f.eventually(path+" answers", func() error {
			_, err := f.fetch("http://" + health + path)
			return err
		})
	}
	f.create(f.subscription("a"))
	f.waitReady("a")
	f.eventually("the reconciler is counted", func() error {
		text, err := f.fetch("http://" + metrics + "/metrics")
		if err != nil {
			return err
		}
		const want = `controller_runtime_reconcile_total{controller="webhooksubscription",result="success"}`
		if !strings.Contains(text, want) {
			return fmt.Errorf("no %s in:\n%s", want, text)
		}
		return nil
	})
}

func TestRequestsAreNotThrottledUnlessAsked(t *testing.T) {
	if got := unthrottled(&rest.Config{}).QPS; got != -1 {
		t.Errorf("QPS is %v", got)
	}
	if got := unthrottled(&rest.Config{QPS: 7}).QPS; got != 7 {
		t.Errorf("QPS is %v, want that which was set", got)
	}
}

func TestAnAddressInUseStopsTheStart(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	manager, err := NewManager(t.Context(), Options{
		Config: cluster.Config, Logger: discard(), MetricsAddress: "0", HealthAddress: listener.Addr().String(),
	})
	if err == nil {
		err = manager.Run(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error is %v", err)
	}
}
