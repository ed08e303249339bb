// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"runtime"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
	"nexus.io/webhooks/test/pki"
)

func TestIdentitiesAreFoundWhileTheyAreUsed(t *testing.T) {
	is := newIdentities()
	const count = 8
	used := make([]*routing.TLS, count)
	for i := range used {
		used[i] = &routing.TLS{ID: strconv.Itoa(i)}
		is.add(used[i])
		is.add(&routing.TLS{ID: used[i].ID}) // the first one stays
	}
	is.add(nil)
	for i, want := range used {
		if got := is.find(strconv.Itoa(i)); got != want {
			t.Errorf("%d: found %p, want %p", i, got, want)
		}
	}
	if is.find("x") != nil {
		t.Error("something was found that was never added")
	}
	kept := used[0]
	clear(used)
	eventually(t, "what nobody uses is forgotten", func() bool {
		runtime.GC()
		return is.len() == 1
	})
	if is.find("0") != kept {
		t.Error("the one in use was forgotten")
	}
}

func TestRoutesFollowTheConfigMapsThatOptedIn(t *testing.T) {
	b := newBench(t, nil)
	one, two := pki.NewAuthority(t, "one"), pki.NewAuthority(t, "two")
	inSettings := func(key string) *v1alpha1.ConfigMapKeyReference {
		return &v1alpha1.ConfigMapKeyReference{Name: "settings", Key: key}
	}
	subs := []*v1alpha1.WebhookSubscription{b.subscribe("a"), b.subscribe("b")}
	for _, sub := range subs {
		b.key(sub)
		sub.Spec.TLS = &v1alpha1.TLS{CABundle: &v1alpha1.CABundleSource{ConfigMapKeyRef: inSettings("ca.crt")}}
		sub.Spec.Headers = []v1alpha1.Header{{Name: "X-Team", ValueFrom: &v1alpha1.HeaderValueSource{ConfigMapKeyRef: inSettings("team")}}}
		b.must(b.client.Update(b.Context(), sub))
	}
	settings := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "settings"},
		Data:       map[string]string{"ca.crt": string(one.Bundle()), "team": "platform"},
	}
	b.must(b.client.Create(b.Context(), settings))
	b.ready()
	b.eventuallyRoute(subs[0], "waits for the ConfigMap to opt in", func(r *routing.Route) bool {
		return r.Hold == v1alpha1.ReasonConfigMapNotFound && r.TLS == nil
	})

	trusts := func(authority *pki.Authority, team string) func(*routing.Route) bool {
		return func(r *routing.Route) bool {
			return r.Hold == "" && r.TLS != nil && r.TLS.RootCAs.Equal(authority.Pool()) &&
				len(r.Headers) == 1 && r.Headers[0].Value == team
		}
	}
	settings.Labels = map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue}
	b.must(b.client.Update(b.Context(), settings))
	for _, sub := range subs {
		b.eventuallyRoute(sub, "trusts the first authority", trusts(one, "platform"))
	}
	if b.route(subs[0]).TLS != b.route(subs[1]).TLS {
		t.Error("two subscriptions with the same bundle hold it twice")
	}
	settings.Data = map[string]string{"ca.crt": string(two.Bundle()), "team": "infrastructure"}
	b.must(b.client.Update(b.Context(), settings))
	for _, sub := range subs {
		b.eventuallyRoute(sub, "trusts the second authority", trusts(two, "infrastructure"))
	}
	settings.Labels = nil
	b.must(b.client.Update(b.Context(), settings))
	b.eventuallyRoute(subs[1], "waits again", func(r *routing.Route) bool {
		return r.Hold == v1alpha1.ReasonConfigMapNotFound && r.TLS == nil
	})
}
