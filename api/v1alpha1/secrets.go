// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Who writes the status, as the field owners of server-side apply.
const (
	// FieldOwnerManager owns everything of the status but what FieldOwnerDispatcher owns.
	FieldOwnerManager = "webhooks-manager"
	// FieldOwnerDispatcher owns status.delivery and the Delivering condition.
	FieldOwnerDispatcher = "webhooks-dispatcher"
)

// How a Secret opts in to being read: by either of the two. Without that, whoever may create a subscription could have
// any Secret of the namespace sent to a URL of theirs.
const (
	// SecretTypeSigningKey is the type of generated Secrets, and of those made to be read.
	SecretTypeSigningKey = "webhooks.nexus.io/signing-key"
	// LabelReadable opts a Secret or a ConfigMap in if its value is LabelReadableValue.
	LabelReadable = "webhooks.nexus.io/readable"
	// LabelReadableValue is the value of LabelReadable that opts in.
	LabelReadableValue = "true"
	// LabelManagedBy has the value FieldOwnerManager on generated Secrets.
	LabelManagedBy = "app.kubernetes.io/managed-by"
)

// secretTypeServiceAccountToken is a type of which nobody's label opts in: Kubernetes puts a token into such a Secret,
// which whoever may make one, but read none, could have sent to a URL of theirs.
const secretTypeServiceAccountToken = "kubernetes.io/service-account-token" //nolint:gosec // it is no credential

// How a rotation of signing keys is asked for and what comes of it. All times are RFC 3339.
const (
	// AnnotationRotateRequested on a subscription asks for one rotation of its generated key with each new value. A value
	// that no one else uses, such as the time, is a good one.
	AnnotationRotateRequested = "webhooks.nexus.io/rotate-requested"
	// AnnotationRotatedFor on a generated Secret is the value of AnnotationRotateRequested that its key answers.
	AnnotationRotatedFor = "webhooks.nexus.io/rotated-for"
	// AnnotationRotatedAt is when the key of a Secret took the place of another one.
	AnnotationRotatedAt = "webhooks.nexus.io/rotated-at"
	// AnnotationPreviousValidUntil is when the value under PreviousSigningKey stops signing.
	AnnotationPreviousValidUntil = "webhooks.nexus.io/previous-valid-until"
)

// What the values within a Secret must be.
const (
	// DefaultSigningKey is the key within a Secret that signs, unless the spec names another.
	DefaultSigningKey = "secret"
	// PreviousSigningKey is the key within a Secret of the manager whose value signs too while an overlap lasts.
	PreviousSigningKey = "previous"
	// MinSigningKeyLength is the shortest signing key, in bytes.
	MinSigningKeyLength = 16
	// MaxSigningKeyLength is the longest signing key, in bytes.
	MaxSigningKeyLength = 1024
	// MaxHeaderValueLength is the longest value of a header, in bytes.
	MaxHeaderValueLength = 4096
)

const (
	generatedSecretSuffix = "-signing"
	seenSecretSuffix      = "-signing-seen"
	maxSecretNameLength   = 253
	shortenedHashLength   = 10
)

// GeneratedSecretName is the name of the Secret that the manager generates for a subscription of this name. It has at
// most 253 characters: a long name is shortened and told apart by a hash of the whole.
func GeneratedSecretName(subscription string) string {
	return secretName(subscription, generatedSecretSuffix)
}

// SeenSecretName is the name of the Secret in which the manager keeps the keys that it saw in the Secret which a
// subscription of this name refers to, so that a change of them has an overlap. Long names are
// shortened as those of GeneratedSecretName are.
func SeenSecretName(subscription string) string {
	return secretName(subscription, seenSecretSuffix)
}

func secretName(subscription, suffix string) string {
	if len(subscription)+len(suffix) <= maxSecretNameLength {
		return subscription + suffix
	}
	sum := sha256.Sum256([]byte(subscription))
	hash := hex.EncodeToString(sum[:])[:shortenedHashLength]
	kept := maxSecretNameLength - len(suffix) - 1 - len(hash)
	return strings.TrimRight(subscription[:kept], "-.") + "-" + hash + suffix
}

// SecretUse is what a subscription wants with a Secret.
type SecretUse int

const (
	// SecretSigns takes the signing key from the Secret.
	SecretSigns SecretUse = iota
	// SecretInHeader sends a value of the Secret to the URL.
	SecretInHeader
	// SecretInTLS takes certificates from the Secret.
	SecretInTLS
)

// SecretRefusal says why a subscription may not use a Secret, and what to do about it, as the rest of a sentence that
// begins with the Secret; "" if it may. The metadata and the type decide it, never the data.
//
// A key that was generated for one subscription is no other's to use, and nobody's to send: with it, whoever may create
// a subscription could forge the requests of another.
func (s *WebhookSubscription) SecretRefusal(secret metav1.Object, secretType string, use SecretUse) string {
	labels := secret.GetLabels()
	owner := controllingSubscription(secret)
	generated := owner != nil || labels[LabelManagedBy] == FieldOwnerManager
	switch {
	case secretType == secretTypeServiceAccountToken:
		return "holds a token of a ServiceAccount, and those are never used: name a Secret with a credential that was made " +
			"for the URL's host"
	case secretType != SecretTypeSigningKey && labels[LabelReadable] != LabelReadableValue:
		return fmt.Sprintf("has not opted in to being read: its owner can label it with %s=%s, or create it with type %s",
			LabelReadable, LabelReadableValue, SecretTypeSigningKey)
	case use != SecretSigns && generated:
		return "holds a generated signing key, and those are never sent as headers: name a Secret of your own"
	case owner != nil && owner.UID != s.UID:
		return fmt.Sprintf("holds the signing key that was generated for another subscription (%s): name a Secret of "+
			"your own, or remove spec.signing.secretRef to have a key generated", owner.Name)
	case owner != nil && secret.GetName() == SeenSecretName(s.Name):
		return "is where keys that signed before are kept: name a Secret of your own, or remove spec.signing.secretRef to " +
			"have a key generated"
	case owner == nil && generated:
		return fmt.Sprintf("holds the signing key that was generated for a subscription that is gone: its owner can "+
			"release it by removing the label %s", LabelManagedBy)
	}
	return ""
}

// ConfigMapReadable tells whether a ConfigMap has opted in to being read, which it does by LabelReadable alone.
// Nothing in it is secret, but only what opted in is watched, and whoever may create a subscription should not have
// everything of the namespace sent to a URL of theirs.
func ConfigMapReadable(configMap metav1.Object) bool {
	return configMap.GetLabels()[LabelReadable] == LabelReadableValue
}

// controllingSubscription is the controller of a Secret if that is a subscription, of whatever version, else nil.
func controllingSubscription(secret metav1.Object) *metav1.OwnerReference {
	owner := metav1.GetControllerOfNoCopy(secret)
	if owner == nil {
		return nil
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	if kind != SubscriptionKind.GroupKind() {
		return nil
	}
	return owner
}
