// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	// signingKeyBytes is the entropy of a generated key; it is stored as twice as many hexadecimal characters, so that
	// it is text which a receiver can paste.
	signingKeyBytes = 32

	eventKeyGenerated   = "SigningKeyGenerated"
	eventKeyRegenerated = "SigningKeyRegenerated"
	eventKeyRemoved     = "SigningKeyRemoved"
	eventKeyRotated     = "SigningKeyRotated"
	eventKeyChanged     = "SigningKeyChanged"
	eventOverlapEnded   = "SigningKeyOverlapEnded"
	actionGenerate      = "GenerateSigningKey"
	actionRemove        = "RemoveSigningKey"
	actionRotate        = "RotateSigningKey"
)

// secretNames lists the Secrets that a subscription uses: the one with its signing key first, then those of its headers
// and its TLS, each once.
func secretNames(sub *v1alpha1.WebhookSubscription) []string {
	names := []string{sub.SigningKey().Name}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, header := range sub.Spec.Headers {
		if header.ValueFrom != nil {
			add(header.ValueFrom.SecretKeyRef.Name)
		}
	}
	if tls := sub.Spec.TLS; tls != nil {
		if tls.CABundle != nil && tls.CABundle.SecretKeyRef != nil {
			add(tls.CABundle.SecretKeyRef.Name)
		}
		if tls.ClientCertificate != nil {
			add(tls.ClientCertificate.SecretRef.Name)
		}
	}
	return names
}

// configMapNames lists the ConfigMaps that a subscription uses, each once.
func configMapNames(sub *v1alpha1.WebhookSubscription) []string {
	var names []string
	add := func(ref *v1alpha1.ConfigMapKeyReference) {
		if ref != nil && !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	for _, header := range sub.Spec.Headers {
		if header.ValueFrom != nil {
			add(header.ValueFrom.ConfigMapKeyRef)
		}
	}
	if tls := sub.Spec.TLS; tls != nil && tls.CABundle != nil {
		add(tls.CABundle.ConfigMapKeyRef)
	}
	return names
}

// watchedSecretNames lists the Secrets whose changes concern a subscription: those that it uses, and the one with the
// keys that were seen.
func watchedSecretNames(sub *v1alpha1.WebhookSubscription) []string {
	return append(secretNames(sub), v1alpha1.SeenSecretName(sub.Name))
}

// readSecrets reads the Secrets that a subscription uses, and the one with the keys that were seen if it has a use, by
// name. Those that do not exist are absent.
func (r *SubscriptionReconciler) readSecrets(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (map[string]*corev1.Secret, error) {
	names := secretNames(sub)
	if !sub.GeneratesSigningKey() {
		names = watchedSecretNames(sub)
	}
	secrets := map[string]*corev1.Secret{}
	for _, name := range names {
		secret, err := r.readSecret(ctx, sub.Namespace, name)
		if err != nil {
			return nil, err
		}
		if secret != nil {
			secrets[name] = secret
		}
	}
	return secrets, nil
}

// readConfigMaps reads the ConfigMaps that a subscription uses, by name. Those that do not exist are absent.
func (r *SubscriptionReconciler) readConfigMaps(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (map[string]*corev1.ConfigMap, error) {
	configMaps := map[string]*corev1.ConfigMap{}
	for _, name := range configMapNames(sub) {
		found := &corev1.ConfigMap{}
		err := r.Client.Get(ctx, types.NamespacedName{Namespace: sub.Namespace, Name: name}, found)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("read ConfigMap %s: %w", name, err)
		default:
			configMaps[name] = found
		}
	}
	return configMaps, nil
}

// readSecret reads a Secret from the API server. It is nil if there is none.
func (r *SubscriptionReconciler) readSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, secret)
	if err != nil {
		return nil, wrapUnlessNotFound(err, "read Secret "+name)
	}
	return secret, nil
}

// owns tells whether there is a Secret of this name in the cache that belongs to the subscription. It costs no request.
func (r *SubscriptionReconciler) owns(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, name string,
) (*metav1.PartialObjectMetadata, error) {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: sub.Namespace, Name: name}, secret)
	if err != nil {
		return nil, wrapUnlessNotFound(err, "look for Secret "+name)
	}
	if !metav1.IsControlledBy(secret, sub) {
		return nil, nil
	}
	return secret, nil
}

// generateKey creates the Secret with the signing key if the spec names none and it does not exist, and adds it to
// secrets. A Secret that exists is left as it is, whoever made it and whatever is in it: a key that somebody put there
// may be the only one that their receivers know. What is wrong with it becomes a condition, and deleting it is how to
// ask for a new key. One that was left behind is replaced. The subscription is read again from the API server first:
// people get told when a key is replaced, so the status must not be older than the Secret.
func (r *SubscriptionReconciler) generateKey(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) error {
	name := v1alpha1.GeneratedSecretName(sub.Name)
	before := secrets[name]
	if !sub.GeneratesSigningKey() || before != nil && !isLeftBehind(before, sub) {
		return nil
	}
	current, err := r.readAgain(ctx, sub)
	if err != nil || current == nil || !current.GeneratesSigningKey() {
		return err
	}
	if before != nil {
		if err := r.deleteSecret(ctx, before); err != nil {
			return err
		}
	}
	secret := newSigningSecret(current)
	if err := r.keepSeenKey(ctx, current, secret); err != nil {
		return err
	}
	if err := r.createOwned(ctx, current, secret); err != nil {
		return err
	}
	secrets[name] = secret
	r.recordGenerated(current, name)
	return nil
}

// isLeftBehind tells whether a Secret was generated for a subscription of this name that is gone, as the other UID
// says. The garbage collector would delete it, where there is one and once it comes by.
func isLeftBehind(secret *corev1.Secret, sub *v1alpha1.WebhookSubscription) bool {
	owner := metav1.GetControllerOf(secret)
	return owner != nil && owner.Kind == v1alpha1.Kind && owner.APIVersion == v1alpha1.GroupVersion.String() &&
		owner.Name == sub.Name && owner.UID != sub.UID && secret.Type == v1alpha1.SecretTypeSigningKey &&
		secret.Labels[v1alpha1.LabelManagedBy] == v1alpha1.FieldOwnerManager
}

func (r *SubscriptionReconciler) recordGenerated(sub *v1alpha1.WebhookSubscription, name string) {
	if before := sub.Status.SigningSecret; before != nil && before.Name == name {
		r.Events.Eventf(sub, nil, corev1.EventTypeWarning, eventKeyRegenerated, actionGenerate,
			"Secret %s was gone: a new signing key was generated. Receivers need the new key to verify requests", name)
		return
	}
	r.Events.Eventf(sub, nil, corev1.EventTypeNormal, eventKeyGenerated, actionGenerate,
		"Generated a signing key in Secret %s", name)
}

// createOwned creates a Secret that belongs to the subscription and goes with it.
func (r *SubscriptionReconciler) createOwned(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secret *corev1.Secret,
) error {
	if err := controllerutil.SetControllerReference(sub, secret, r.Client.Scheme(),
		controllerutil.WithBlockOwnerDeletion(false)); err != nil {
		return fmt.Errorf("own Secret %s: %w", secret.Name, err)
	}
	if err := r.Client.Create(ctx, secret, client.FieldOwner(v1alpha1.FieldOwnerManager)); err != nil {
		return fmt.Errorf("create Secret %s: %w", secret.Name, err)
	}
	return nil
}

// newSigningSecret holds a new key, which answers whatever request for a rotation there is.
func newSigningSecret(sub *v1alpha1.WebhookSubscription) *corev1.Secret {
	secret := ownSecret(sub, v1alpha1.GeneratedSecretName(sub.Name), newSigningKey())
	answerRequest(secret, sub)
	return secret
}

func newSigningKey() []byte {
	key := make([]byte, signingKeyBytes)
	_, _ = rand.Read(key) // never fails: it would rather end the process
	return []byte(hex.EncodeToString(key))
}

// ownSecret is a Secret of the manager with a signing key.
func ownSecret(sub *v1alpha1.WebhookSubscription, name string, key []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: sub.Namespace,
			Name:      name,
			Labels:    map[string]string{v1alpha1.LabelManagedBy: v1alpha1.FieldOwnerManager},
		},
		Type: v1alpha1.SecretTypeSigningKey,
		Data: map[string][]byte{v1alpha1.DefaultSigningKey: key},
	}
}

// removeUnusedKey deletes the generated Secret of a subscription that has come to sign with another one, so that no
// valid-looking key lies about. It waits until the other one can be used: a misspelt name in the spec must not cost the
// key. A key cannot be brought back, so the spec is read again from the API server first.
func (r *SubscriptionReconciler) removeUnusedKey(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, desired v1alpha1.WebhookSubscriptionStatus,
) error {
	name := v1alpha1.GeneratedSecretName(sub.Name)
	if slices.Contains(secretNames(sub), name) || !isTrue(desired.Conditions, v1alpha1.ConditionSecretReady) {
		return nil
	}
	secret, err := r.owns(ctx, sub, name)
	if err != nil || secret == nil {
		return err
	}
	current, err := r.readAgain(ctx, sub)
	if err != nil || current == nil || slices.Contains(secretNames(current), name) {
		return err
	}
	if err := r.deleteSecret(ctx, secret); err != nil {
		return err
	}
	r.Events.Eventf(sub, nil, corev1.EventTypeNormal, eventKeyRemoved, actionRemove,
		"Deleted Secret %s: requests are signed with a key of Secret %s now", name, sub.SigningKey().Name)
	return nil
}

// deleteSecret deletes this Secret and no other that took its place.
func (r *SubscriptionReconciler) deleteSecret(ctx context.Context, secret client.Object) error {
	uid := secret.GetUID()
	if err := r.Client.Delete(ctx, secret, client.Preconditions{UID: &uid}); err != nil {
		return wrapUnlessNotFound(err, "delete Secret "+secret.GetName())
	}
	return nil
}

// readAgain reads a subscription from the API server rather than the cache. It is nil if the subscription is gone.
func (r *SubscriptionReconciler) readAgain(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (*v1alpha1.WebhookSubscription, error) {
	current := &v1alpha1.WebhookSubscription{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(sub), current); err != nil {
		return nil, wrapUnlessNotFound(err, "read the subscription again")
	}
	if current.UID != sub.UID {
		return nil, nil
	}
	return current, nil
}

func wrapUnlessNotFound(err error, what string) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// ignoreNamespaceTerminating drops the error of creating something in a namespace that is going away: the subscription
// goes with it.
func ignoreNamespaceTerminating(err error) error {
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}
