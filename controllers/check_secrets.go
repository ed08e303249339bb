// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
)

// sources are the Secrets and ConfigMaps that a subscription uses and that there are, by name.
type sources struct {
	secrets    map[string]*corev1.Secret
	configMaps map[string]*corev1.ConfigMap
}

// checkSources tells whether every Secret and ConfigMap that a subscription uses is there, may be read and holds
// something usable.
func checkSources(sub *v1alpha1.WebhookSubscription, from sources) finding {
	if f := checkSigningKey(sub, from.secrets); !f.ok {
		return f
	}
	for i, header := range sub.Spec.Headers {
		if header.ValueFrom == nil {
			continue
		}
		if f := checkHeader(fmt.Sprintf("spec.headers[%d].valueFrom", i), sub, header.ValueFrom, from); !f.ok {
			return f
		}
	}
	if f := checkTLS(sub, from); !f.ok {
		return f
	}
	key := sub.SigningKey()
	return finding{
		ok: true, reason: v1alpha1.ReasonSecretReady,
		message: fmt.Sprintf("Requests are signed with key %q of Secret %q", key.Key, key.Name) + hint(sub, from.secrets),
	}
}

// hint is the end of the message about a key that can be used but not rotated as somebody may expect.
func hint(sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret) string {
	seen := v1alpha1.SeenSecretName(sub.Name)
	switch {
	case sub.GeneratesSigningKey():
		return ""
	case secrets[seen] != nil && !metav1.IsControlledBy(secrets[seen], sub):
		return fmt.Sprintf("; a change of it will have no overlap, as Secret %q, where the previous key would be kept, "+
			"does not belong to this subscription: delete or rename that Secret", seen)
	case sub.Annotations[v1alpha1.AnnotationRotateRequested] != "":
		return fmt.Sprintf("; the annotation %s does nothing here, as only a generated key is rotated: put a new key into "+
			"the Secret instead", v1alpha1.AnnotationRotateRequested)
	}
	return ""
}

func checkSigningKey(sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret) finding {
	ref := sub.SigningKey()
	field, remedy := "spec.signing.secretRef", ""
	if sub.GeneratesSigningKey() {
		field, remedy = "generated", "; delete the Secret to have a new key generated"
		if secret := secrets[ref.Name]; secret != nil && !metav1.IsControlledBy(secret, sub) {
			return wrong(v1alpha1.ReasonSecretConflict,
				"Secret %q exists and does not belong to this subscription, so no signing key can be generated there: "+
					"delete or rename it, or name it in spec.signing.secretRef", ref.Name)
		}
	}
	value, f := readKey(use{field, sub, v1alpha1.SecretSigns}, ref, secrets)
	if !f.ok {
		f.message += remedy
		return f
	}
	if !v1alpha1.UsableSigningKey(value) {
		return wrong(v1alpha1.ReasonSecretKeyInvalid,
			"Secret %q (%s): the value of key %q must be %d to %d bytes long to sign requests%s", ref.Name, field, ref.Key,
			v1alpha1.MinSigningKeyLength, v1alpha1.MaxSigningKeyLength, remedy)
	}
	return finding{ok: true}
}

func checkHeader(
	field string, sub *v1alpha1.WebhookSubscription, source *v1alpha1.HeaderValueSource, from sources,
) finding {
	const rule = "must be one line of at most %d bytes without control characters to be a header; a newline at its end " +
		"is one too many"
	if ref := source.ConfigMapKeyRef; ref != nil {
		value, f := readConfigMapKey(field+".configMapKeyRef", *ref, from.configMaps)
		if f.ok && !routing.ValidHeaderValue(value) {
			return wrong(v1alpha1.ReasonConfigMapKeyInvalid, "ConfigMap %q (%s.configMapKeyRef): the value of key %q "+rule,
				ref.Name, field, ref.Key, v1alpha1.MaxHeaderValueLength)
		}
		return f
	}
	ref := source.SecretKeyRef
	value, f := readKey(use{field + ".secretKeyRef", sub, v1alpha1.SecretInHeader}, ref, from.secrets)
	if f.ok && !routing.ValidHeaderValue(value) {
		return wrong(v1alpha1.ReasonSecretKeyInvalid, "Secret %q (%s.secretKeyRef): the value of key %q "+rule,
			ref.Name, field, ref.Key, v1alpha1.MaxHeaderValueLength)
	}
	return f
}

// use is what wants to read a Secret: a field of a subscription, and what for.
type use struct {
	field string
	sub   *v1alpha1.WebhookSubscription
	kind  v1alpha1.SecretUse
}

// readKey reads a key of a Secret if the subscription may. It looks at nothing of the data before it knows that.
func readKey(
	u use, ref v1alpha1.SecretKeyReference, secrets map[string]*corev1.Secret,
) ([]byte, finding) {
	secret := secrets[ref.Name]
	if secret == nil {
		return nil, wrong(v1alpha1.ReasonSecretNotFound,
			"Secret %q (%s) does not exist in this namespace: create it, or correct the name", ref.Name, u.field)
	}
	if refusal := u.sub.SecretRefusal(secret, string(secret.Type), u.kind); refusal != "" {
		return nil, wrong(v1alpha1.ReasonSecretNotReadable, "Secret %q (%s) %s", ref.Name, u.field, refusal)
	}
	value := secret.Data[ref.Key]
	if len(value) == 0 {
		return nil, wrong(v1alpha1.ReasonSecretKeyMissing,
			"Secret %q (%s) has nothing under key %q: add a value there, or correct the key", ref.Name, u.field, ref.Key)
	}
	return value, finding{ok: true}
}
