// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
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
	// LabelReadable opts a Secret in if its value is LabelReadableValue.
	LabelReadable = "webhooks.nexus.io/readable"
	// LabelReadableValue is the value of LabelReadable that opts in.
	LabelReadableValue = "true"
)

// What the values within a Secret must be.
const (
	// DefaultSigningKey is the key within a Secret that signs, unless the spec names another.
	DefaultSigningKey = "secret"
	// MinSigningKeyLength is the shortest signing key, in bytes.
	MinSigningKeyLength = 16
	// MaxSigningKeyLength is the longest signing key, in bytes.
	MaxSigningKeyLength = 1024
	// MaxHeaderValueLength is the longest value of a header, in bytes.
	MaxHeaderValueLength = 4096
)

const (
	generatedSecretSuffix = "-signing"
	maxSecretNameLength   = 253
	shortenedHashLength   = 10
)

// GeneratedSecretName is the name of the Secret that the manager generates for a subscription of this name. It has at
// most 253 characters: a long name is shortened and told apart by a hash of the whole.
func GeneratedSecretName(subscription string) string {
	if len(subscription)+len(generatedSecretSuffix) <= maxSecretNameLength {
		return subscription + generatedSecretSuffix
	}
	sum := sha256.Sum256([]byte(subscription))
	hash := hex.EncodeToString(sum[:])[:shortenedHashLength]
	kept := maxSecretNameLength - len(generatedSecretSuffix) - 1 - len(hash)
	return strings.TrimRight(subscription[:kept], "-.") + "-" + hash + generatedSecretSuffix
}

// SecretReadable tells whether a Secret of this type and with these labels has opted in to being read.
func SecretReadable(secretType string, labels map[string]string) bool {
	return secretType == SecretTypeSigningKey || labels[LabelReadable] == LabelReadableValue
}
