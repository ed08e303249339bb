// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	corev1 "k8s.io/api/core/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
)

// checkTLS tells whether what spec.tls names is there and can be used. The dispatcher judges by the same functions.
func checkTLS(sub *v1alpha1.WebhookSubscription, from sources) finding {
	spec := sub.Spec.TLS
	if spec == nil {
		return finding{ok: true}
	}
	if spec.CABundle != nil {
		if f := checkCABundle(sub, spec.CABundle, from); !f.ok {
			return f
		}
	}
	if spec.ClientCertificate != nil {
		return checkClientCertificate(sub, spec.ClientCertificate.SecretRef.Name, from)
	}
	return finding{ok: true}
}

func checkCABundle(sub *v1alpha1.WebhookSubscription, source *v1alpha1.CABundleSource, from sources) finding {
	const rule = "the value of key %q is no CA bundle: %s"
	if ref := source.ConfigMapKeyRef; ref != nil {
		const field = "spec.tls.caBundle.configMapKeyRef"
		bundle, f := readConfigMapKey(field, *ref, from.configMaps)
		if !f.ok {
			return f
		}
		if _, err := routing.ParseCABundle(bundle); err != nil {
			return wrong(v1alpha1.ReasonConfigMapKeyInvalid, "ConfigMap %q (%s): "+rule, ref.Name, field, ref.Key, err)
		}
		return finding{ok: true}
	}
	if source.SecretKeyRef == nil {
		return wrong(v1alpha1.ReasonSecretNotFound, "spec.tls.caBundle names neither a Secret nor a ConfigMap: name one")
	}
	const field = "spec.tls.caBundle.secretKeyRef"
	ref := *source.SecretKeyRef
	bundle, f := readKey(use{field, sub, v1alpha1.SecretInTLS}, ref, from.secrets)
	if !f.ok {
		return f
	}
	if _, err := routing.ParseCABundle(bundle); err != nil {
		return wrong(v1alpha1.ReasonSecretKeyInvalid, "Secret %q (%s): "+rule, ref.Name, field, ref.Key, err)
	}
	return finding{ok: true}
}

func checkClientCertificate(sub *v1alpha1.WebhookSubscription, name string, from sources) finding {
	const field = "spec.tls.clientCertificate.secretRef"
	read := func(key string) ([]byte, finding) {
		ref := v1alpha1.SecretKeyReference{Name: name, Key: key}
		return readKey(use{field, sub, v1alpha1.SecretInTLS}, ref, from.secrets)
	}
	chain, f := read(corev1.TLSCertKey)
	if !f.ok {
		return f
	}
	key, f := read(corev1.TLSPrivateKeyKey)
	if !f.ok {
		return f
	}
	if _, err := routing.ParseClientCertificate(chain, key); err != nil {
		return wrong(v1alpha1.ReasonSecretKeyInvalid, "Secret %q (%s) is no client certificate: %s", name, field, err)
	}
	return finding{ok: true}
}

// readConfigMapKey reads a key of a ConfigMap that has opted in.
func readConfigMapKey(
	field string, ref v1alpha1.ConfigMapKeyReference, configMaps map[string]*corev1.ConfigMap,
) ([]byte, finding) {
	found := configMaps[ref.Name]
	if found == nil || !v1alpha1.ConfigMapReadable(found) {
		return nil, wrong(v1alpha1.ReasonConfigMapNotFound,
			"ConfigMap %q (%s) does not exist in this namespace, or has not opted in to being read: its owner can create it, "+
				"or label it with %s=%s", ref.Name, field, v1alpha1.LabelReadable, v1alpha1.LabelReadableValue)
	}
	value := routing.ConfigMapValue(found, ref.Key)
	if len(value) == 0 {
		return nil, wrong(v1alpha1.ReasonConfigMapKeyMissing,
			"ConfigMap %q (%s) has nothing under key %q: add a value there, or correct the key", ref.Name, field, ref.Key)
	}
	return value, finding{ok: true}
}
