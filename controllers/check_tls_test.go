// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/pki"
)

// configMap is a ConfigMap of somebody, opted in.
func (f *fixture) configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: f.namespace, Name: name,
			Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
		},
		Data: data,
	}
}

func (f *fixture) expectNotReady(reason, message string) {
	f.t.Helper()
	condition := f.waitFor("cicd", v1alpha1.ConditionSecretReady, reason)
	if condition.Status != metav1.ConditionFalse || !strings.Contains(condition.Message, message) ||
		strings.Contains(condition.Message, "PRIVATE") {
		f.t.Errorf("SecretReady is %s: %q; it must say %q", condition.Status, condition.Message, message)
	}
	f.waitFor("cicd", v1alpha1.ConditionReady, reason)
}

func TestWhatTLSNamesIsCheckedAsItComesAndChanges(t *testing.T) {
	f := newManagedFixture(t)
	ca := pki.NewAuthority(t, "ca")
	chain, key := ca.Issue("client")
	_, otherKey := ca.Issue("other")
	sub := f.subscription("cicd")
	sub.Spec.TLS = &v1alpha1.TLS{
		CABundle: &v1alpha1.CABundleSource{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "ca", Key: "ca.crt"}},
		ClientCertificate: &v1alpha1.ClientCertificateSource{
			SecretRef: v1alpha1.SecretReference{Name: "certificate"},
		},
	}
	bundle, certificate := f.configMap("ca", map[string]string{"other": "x"}), f.secret("certificate", map[string]string{
		"tls.crt": string(chain), "tls.key": string(otherKey),
	})
	certificate.Type = corev1.SecretTypeTLS
	label := bundle.Labels
	bundle.Labels = nil

	f.create(bundle, sub)
	f.expectNotReady(v1alpha1.ReasonConfigMapNotFound,
		`ConfigMap "ca" (spec.tls.caBundle.configMapKeyRef) does not exist in this namespace, or has not opted in to being `+
			`read: its owner can create it, or label it with webhooks.nexus.io/readable=true`)
	edit(f, bundle, func(c *corev1.ConfigMap) { c.Labels = label })
	f.expectNotReady(v1alpha1.ReasonConfigMapKeyMissing, `has nothing under key "ca.crt"`)
	edit(f, bundle, func(c *corev1.ConfigMap) { c.Data["ca.crt"] = "no certificate" })
	f.expectNotReady(v1alpha1.ReasonConfigMapKeyInvalid, "BEGIN CERTIFICATE")
	edit(f, bundle, func(c *corev1.ConfigMap) { c.Data["ca.crt"] = string(ca.Bundle()) })
	f.expectNotReady(v1alpha1.ReasonSecretNotFound, `Secret "certificate" (spec.tls.clientCertificate.secretRef)`)
	f.create(certificate)
	f.expectNotReady(v1alpha1.ReasonSecretKeyInvalid, "do not belong together")
	edit(f, certificate, func(s *corev1.Secret) { s.Data["tls.key"] = key })
	f.waitReady("cicd")
	edit(f, certificate, func(s *corev1.Secret) { s.Labels = nil })
	f.expectNotReady(v1alpha1.ReasonSecretNotReadable, "webhooks.nexus.io/readable=true")
	edit(f, certificate, func(s *corev1.Secret) { s.Labels = label })
	f.waitReady("cicd")
	f.delete(bundle)
	f.expectNotReady(v1alpha1.ReasonConfigMapNotFound, `ConfigMap "ca"`)
	edit(f, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.TLS.CABundle = &v1alpha1.CABundleSource{SecretKeyRef: &v1alpha1.SecretKeyReference{Name: "certificate", Key: "tls.key"}}
	})
	f.expectNotReady(v1alpha1.ReasonSecretKeyInvalid, "(spec.tls.caBundle.secretKeyRef): the value of key \"tls.key\" is no CA bundle")
	if log := f.log.String(); strings.Contains(log, "is forbidden") {
		t.Errorf("config/rbac allows too little:\n%s", log)
	}
}

func TestAHeaderOfAConfigMapIsChecked(t *testing.T) {
	f := newManagedFixture(t)
	sub := f.subscription("cicd")
	sub.Spec.Headers = []v1alpha1.Header{{Name: "X-Team", ValueFrom: &v1alpha1.HeaderValueSource{
		ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "settings", Key: "team"},
	}}}
	f.create(sub)
	f.expectNotReady(v1alpha1.ReasonConfigMapNotFound, `ConfigMap "settings" (spec.headers[0].valueFrom.configMapKeyRef)`)
	settings := f.configMap("settings", map[string]string{"team": "platform\n"})
	f.create(settings)
	f.expectNotReady(v1alpha1.ReasonConfigMapKeyInvalid, "a newline at its end is one too many")
	edit(f, settings, func(c *corev1.ConfigMap) { c.Data["team"] = "platform" })
	f.waitReady("cicd")
}
