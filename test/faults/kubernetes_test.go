// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/stack"
)

// ways to the Kubernetes API.
type ways struct{ manager, dispatchers *kube.Proxy }

// newKubernetesTrial has the dispatchers reach the Kubernetes API through a proxy and the manager through another; the
// test needs none.
func newKubernetesTrial(t *testing.T) (*trial, ways) {
	t.Helper()
	w, path := ways{cluster.NewProxy(t), cluster.NewProxy(t)}, filepath.Join(t.TempDir(), "kubeconfig")
	if err := stack.WriteKubeconfig(w.dispatchers.Config, path); err != nil {
		t.Fatal(err)
	}
	through := *cluster
	through.Config = w.manager.Config
	r := newTrial(t, expectation{api: &through, flags: []string{"--kubeconfig=" + path}})
	r.subscribe("moved", r.s.Receiver.URL+"/ok/before")
	return r, w
}

// The API server refuses connections for half of the time and hangs for the other half, and the manager is dead all the
// while. Deliveries go on by what was known, a dispatcher that starts takes nothing, and what changed counts afterwards.
func TestAKubernetesAPIThatIsAway(t *testing.T) {
	r, ways := newKubernetesTrial(t)
	proxy := ways.dispatchers
	r.run(func(ctx context.Context, r *trial) int {
		r.s.Manager.Kill()
		proxy.Leave()
		newcomer := r.s.Further(t)
		r.must(newcomer.Start())
		r.change()
		half := time.AfterFunc(*faultTime/2, func() {
			proxy.Hang()
			proxy.Return(t)
		})
		defer half.Stop()
		asked, known := 0, 0
		r.every(ctx, 200*time.Millisecond, func(n int) {
			asked += r.refusedBy(newcomer, n)
			known++
			r.send(0, "moved", fmt.Sprint("before-", n))
		})
		if asked == 0 {
			r.Error("the dispatcher that was started meanwhile never answered")
		}
		r.arrives("/ok/before", known)
		r.must(r.s.Manager.Start())
		proxy.Answer()
		r.effective()
		r.must(newcomer.WaitReady(r.Context()))
		r.follows(newcomer, "newcomer")
		return 1
	})
}

// Watches of manager and dispatchers end over and over, and then each that comes again is told that its version is gone,
// so that everything is listed anew.
func TestWatchesThatAreCutAndExpire(t *testing.T) {
	r, ways := newKubernetesTrial(t)
	proxies := map[string]*kube.Proxy{"manager": ways.manager, "dispatchers": ways.dispatchers}
	r.run(func(ctx context.Context, r *trial) int {
		half, end := context.WithTimeout(ctx, *faultTime/2)
		defer end()
		r.change()
		cut := map[string]int{}
		strike := func(int) {
			for whose, proxy := range proxies {
				cut[whose] += proxy.Cut()
			}
		}
		struck := r.every(half, 200*time.Millisecond, strike)
		for _, proxy := range proxies {
			proxy.Expire(true)
		}
		strike(struck) // clients come again, and hear it
		<-ctx.Done()
		r.effective() // while watches expire
		for whose, proxy := range proxies {
			r.eventually("a watch of "+whose+" expires", func() error { // clients come again less and less often
				if proxy.Expire(true) == 0 {
					return errors.New("none has")
				}
				return nil
			})
			told := proxy.Expire(false)
			r.Logf("%s: %d connections were cut, %d watches expired", whose, cut[whose], told)
			if cut[whose] == 0 {
				r.Errorf("the watches of %s did not meet it", whose)
			}
		}
		return struck
	})
}

// change moves a subscription to another endpoint, and makes another.
func (r *trial) change() {
	r.Helper()
	sub := r.subs["moved"]
	before := client.MergeFrom(sub.DeepCopy())
	sub.Spec.URL = r.s.Receiver.URL + "/ok/after"
	if err := r.s.Client.Patch(r.Context(), sub, before); err != nil {
		r.Fatal(err)
	}
	r.create("late", r.s.Receiver.URL+"/ok/late")
}

// effective waits until what change did counts at all dispatchers.
func (r *trial) effective() {
	r.Helper()
	r.routed(r.subs["moved"])
	r.routed(r.subs["late"])
	for i, d := range r.s.Dispatchers {
		r.follows(d, fmt.Sprint("follows-", i))
	}
}

// follows waits until events that are published to d go where the changed subscriptions say.
func (r *trial) follows(d *stack.Process, name string) {
	r.Helper()
	n := 0
	r.eventually(d.Name+" follows what changed", func() error {
		n++
		late, moved := fmt.Sprintf("%s-late-%d", name, n), fmt.Sprintf("%s-moved-%d", name, n)
		r.load.post(r.Context(), d, "late", late)
		r.load.post(r.Context(), d, "moved", moved)
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		for path, event := range map[string]string{"/ok/late": late, "/ok/after": moved} {
			_, err := r.s.Receiver.Wait(ctx, path, func(list []receiver.Arrival) bool { return taken(list)[event] > 0 })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *trial) send(to int, kind, id string) {
	r.load.post(r.Context(), r.s.Dispatchers[to], kind, id)
}

func (r *trial) arrives(path string, count int) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), drain)
	defer cancel()
	if _, err := r.s.Receiver.Wait(ctx, path, func(list []receiver.Arrival) bool { return len(list) >= count }); err != nil {
		r.Errorf("deliveries do not go on: %v", err)
	}
}

// refusedBy holds a dispatcher that knows no subscriptions to taking no events, and returns 1 if it answered at all.
func (r *trial) refusedBy(d *stack.Process, n int) int {
	r.Helper()
	body := fmt.Sprintf(`{"id":"astray-%d","type":"build.completed","source":"faults","data":{"project":"healthy"}}`, n)
	status, answer, err := stack.Post(r.Context(), r.load.client, d.URL+"/api/v1/events", body)
	if err != nil {
		return 0 // it does not listen yet
	}
	if status != http.StatusServiceUnavailable {
		r.Errorf("it knows no subscriptions, and answers an event with %d %s", status, answer)
	}
	if status, answer, err := r.ask(d.URL + "/readyz"); err == nil && status != http.StatusServiceUnavailable {
		r.Errorf("it knows no subscriptions, and is ready: %d %s", status, strings.TrimSpace(answer))
	}
	return 1
}
