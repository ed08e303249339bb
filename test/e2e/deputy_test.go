// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/receiver"
)

const notTheirs = "not-to-be-sent-5d27" // in each Secret that is nobody's to send

// uses are how a subscription, as the API takes it, can name a Secret.
var uses = map[string]string{
	"key":         `"signing":{"secret_ref":{"name":%q}}`,
	"header":      `"headers":[{"name":"X-A","value_from":{"secret_key_ref":{"name":%q,"key":"secret"}}}]`,
	"ca":          `"tls":{"ca_bundle":{"secret_key_ref":{"name":%q,"key":"secret"}}}`,
	"certificate": `"tls":{"client_certificate":{"secret_ref":{"name":%q}}}`,
}

// Whoever may make subscriptions, over HTTP too, but read no Secret, gets nothing of one that has not opted in, that was
// made for another subscription, that holds the token of a ServiceAccount, or that lies in another namespace.
func TestASubscriptionLendsNobodyItsRights(t *testing.T) {
	s := startBoth(t, "--egress-allow-networks=127.0.0.0/8")
	to, err := receiver.Start()
	s.must(err)
	t.Cleanup(to.Close)
	s.token = cluster.Token(t.Context(), t, s.namespace, "editor", "nexus-webhooks")
	cluster.Grant(t.Context(), t, "webhooksubscription_editor_role", s.namespace, kube.Subject(s.namespace, "editor"))
	cluster.Grant(t.Context(), t, "event_publisher_role", "", kube.Subject(s.namespace, "editor"))

	subscribe := func(name, how string) *v1alpha1.WebhookSubscription {
		body := fmt.Sprintf(`{"name":%q,"url":"%s/ok/%s","events":["build.completed"]%s}`, name, to.URL, name, how)
		if answer := s.call("POST", "/api/v1/subscriptions?namespace="+s.namespace, body); !strings.HasPrefix(answer, "201") {
			t.Fatalf("%s: %s", name, answer)
		}
		return &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name}}
	}
	s.sub = subscribe("victim", "")
	s.ready()
	elsewhere := s.plantSecrets()

	refused := map[string]*v1alpha1.WebhookSubscription{}
	for secret, reason := range map[string]string{
		"closed": "not opted in", "victim-signing": "generated", "account": "ServiceAccount", "labelled-account": "ServiceAccount",
		"elsewhere": "", "default.elsewhere": "",
	} {
		for use, form := range uses {
			name := secret + "-" + use
			refused[name] = subscribe(strings.ReplaceAll(name, ".", "-"), ","+fmt.Sprintf(form, secret))
			s.sub = refused[name]
			eventually(t, 30*time.Second, name+" is refused", func(ctx context.Context) error {
				err := s.has(ctx, v1alpha1.ConditionSecretReady)
				c := meta.FindStatusCondition(s.sub.Status.Conditions, v1alpha1.ConditionSecretReady)
				if err == nil && (c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, reason)) {
					err = fmt.Errorf("the condition is %+v", c)
				}
				return err
			})
		}
	}
	event := `{"id":"deputy","type":"build.completed","source":"test","data":{"project":"p"}}`
	if answer := s.call("POST", "/api/v1/events", event); !strings.HasPrefix(answer, "202") {
		t.Fatal(answer)
	}
	_, err = to.Wait(t.Context(), "/ok/victim", func(list []receiver.Arrival) bool { return len(list) > 0 })
	s.must(err)
	if list := to.Arrivals("/"); len(list) != 1 {
		t.Errorf("%d requests were sent, want that of the one subscription that names nothing", len(list))
	}
	for _, p := range []string{"victim", "closed-header"} {
		text, err := json.Marshal(s.object(p).Status)
		if s.must(err); strings.Contains(string(text), notTheirs) {
			t.Errorf("the status of %s shows what is in a Secret: %s", p, text)
		}
	}
	s.keepsToNamespace(t, elsewhere)
}

// plantSecrets makes what is to stay where it is, and a subscription in another namespace.
func (s *scene) plantSecrets() (elsewhere *v1alpha1.WebhookSubscription) {
	s.Helper()
	other := cluster.Namespace(s.Context(), s, "elsewhere")
	readable := map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue}
	account := map[string]string{corev1.ServiceAccountNameKey: "editor"}
	data := map[string]string{"secret": notTheirs, "tls.crt": notTheirs, "tls.key": notTheirs, "token": notTheirs}
	for _, secret := range []*corev1.Secret{
		{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "closed"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "account", Annotations: account}, Type: corev1.SecretTypeServiceAccountToken},
		{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "labelled-account", Annotations: account, Labels: readable},
			Type: corev1.SecretTypeServiceAccountToken},
		{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "elsewhere", Labels: readable}},
	} {
		secret.StringData = data
		s.make(secret)
	}
	elsewhere = &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "other"}}
	elsewhere.Spec.URL, elsewhere.Spec.Events = "https://endpoint.test/", []string{"build.failed"}
	s.make(elsewhere)
	return elsewhere
}

func (s *scene) object(name string) *v1alpha1.WebhookSubscription {
	s.Helper()
	found := &v1alpha1.WebhookSubscription{}
	s.must(s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, found))
	return found
}

// keepsToNamespace shows that the dispatcher, which may change all subscriptions, does so for nobody who may not.
func (s *scene) keepsToNamespace(t *testing.T, other *v1alpha1.WebhookSubscription) {
	t.Helper()
	s.sub = other
	s.ready()
	one := "/api/v1/subscriptions/" + other.Status.ID
	body := `{"name":"intruder","url":"https://endpoint.test/","events":["*"]}`
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/api/v1/subscriptions?namespace=" + other.Namespace, body, http.StatusForbidden},
		{"POST", "/api/v1/subscriptions?namespace=../" + other.Namespace, body, http.StatusBadRequest},
		{"GET", one, "", http.StatusForbidden},
		{"PATCH", one, `{"url":"https://elsewhere.test/"}`, http.StatusForbidden},
		{"DELETE", one, "", http.StatusForbidden},
		{"POST", one + "/rotate-secret", "", http.StatusForbidden},
		{"POST", one + "/pause", "", http.StatusForbidden},
		{"POST", one + "/test", "", http.StatusForbidden},
		{"GET", "/api/v1/deliveries?namespace=" + other.Namespace, "", http.StatusForbidden},
	} {
		if answer := s.call(c.method, c.path, c.body); !strings.HasPrefix(answer, fmt.Sprint(c.want)) {
			t.Errorf("%s %s: %s, want %d", c.method, c.path, answer, c.want)
		}
	}
	before := other.DeepCopy()
	s.must(s.client.Get(t.Context(), client.ObjectKeyFromObject(other), other))
	if other.Spec.URL != before.Spec.URL || other.IsPaused() || len(other.Annotations) > 0 {
		t.Errorf("it was changed: %+v", other)
	}
}
