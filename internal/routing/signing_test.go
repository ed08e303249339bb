// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	oldKey    = "old-key-0123456789"
	newKey    = "new-key-0123456789"
	oldestKey = "oldest-key-0123456789"
)

// kept is a Secret of the manager with a present and a previous key, the latter valid until then; "" for no date.
func kept(name, present, previous, until string) *corev1.Secret {
	s := generated(map[string]string{"secret": present})
	s.Name = name
	if previous != "" {
		s.Data["previous"] = []byte(previous)
	}
	if until != "" {
		s.Annotations = map[string]string{v1alpha1.AnnotationPreviousValidUntil: until}
	}
	return s
}

func TestThePreviousKeySignsWhileItsOverlapLasts(t *testing.T) {
	const soon, justOver, never = "2030-01-01T00:00:01Z", "2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z"
	own := func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own", Key: "k"}}
	}
	abrupt := func(s *v1alpha1.WebhookSubscription) {
		own(s)
		s.Spec.Signing.Rotation = &v1alpha1.KeyRotation{GracePeriodSeconds: ptr(int32(0))}
	}
	abruptGenerated := func(s *v1alpha1.WebhookSubscription) {
		abrupt(s)
		s.Spec.Signing.SecretRef = nil
	}
	foreign := kept("ci-signing-seen", oldKey, "", "")
	foreign.OwnerReferences[0].UID = "another"
	theirs := readable("own", map[string]string{"k": newKey})

	cases := map[string]struct {
		change  func(*v1alpha1.WebhookSubscription)
		secrets []*corev1.Secret
		want    []string
		until   string
	}{
		"a generated key alone": {nil, []*corev1.Secret{kept("ci-signing", newKey, "", "")}, []string{newKey}, never},
		"a generated key in its overlap": {nil, []*corev1.Secret{kept("ci-signing", newKey, oldKey, soon)},
			[]string{newKey, oldKey}, soon},
		"a generated key whose overlap is just over": {nil, []*corev1.Secret{kept("ci-signing", newKey, oldKey, justOver)},
			[]string{newKey}, never},
		"a previous key without a date": {nil, []*corev1.Secret{kept("ci-signing", newKey, oldKey, "")},
			[]string{newKey}, never},
		"a previous key with a date that is none": {nil, []*corev1.Secret{kept("ci-signing", newKey, oldKey, "soon")},
			[]string{newKey}, never},
		"a previous key that is too short": {nil, []*corev1.Secret{kept("ci-signing", newKey, "short", soon)},
			[]string{newKey}, never},
		"a previous key that is the present one": {nil, []*corev1.Secret{kept("ci-signing", newKey, newKey, soon)},
			[]string{newKey}, never},
		"a grace period that was set to 0 meanwhile": {abruptGenerated,
			[]*corev1.Secret{kept("ci-signing", newKey, oldKey, soon)}, []string{newKey}, never},
		"a key of one's own that nobody has seen": {own, []*corev1.Secret{theirs}, []string{newKey}, never},
		"a key of one's own as it was seen": {own,
			[]*corev1.Secret{theirs, kept("ci-signing-seen", newKey, "", "")}, []string{newKey}, never},
		"a key of one's own that changed and nobody has seen it yet": {own,
			[]*corev1.Secret{theirs, kept("ci-signing-seen", oldKey, oldestKey, soon)}, []string{newKey, oldKey}, never},
		"a key of one's own in its overlap": {own,
			[]*corev1.Secret{theirs, kept("ci-signing-seen", newKey, oldKey, soon)}, []string{newKey, oldKey}, soon},
		"a key of one's own whose overlap is over": {own,
			[]*corev1.Secret{theirs, kept("ci-signing-seen", newKey, oldKey, justOver)}, []string{newKey}, never},
		"a key of one's own that changed without a grace period": {abrupt,
			[]*corev1.Secret{theirs, kept("ci-signing-seen", oldKey, "", "")}, []string{newKey}, never},
		"a key of one's own and a Secret of somebody else": {own, []*corev1.Secret{theirs, foreign}, []string{newKey}, never},
		"a key of one's own that has just taken the place of a generated one": {own,
			[]*corev1.Secret{theirs, kept("ci-signing", oldKey, oldestKey, soon)}, []string{newKey, oldKey}, never},
		"a generated key that has taken the place of one's own": {nil,
			[]*corev1.Secret{kept("ci-signing", newKey, oldKey, soon), kept("ci-signing-seen", oldKey, oldestKey, soon)},
			[]string{newKey, oldKey}, soon},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := Compile(subscription(c.change), getter(c.secrets...), defaults)
			var got []string
			for _, k := range r.Keys {
				got = append(got, string(k))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if until := r.PreviousUntil.Format(time.RFC3339); until != c.until {
				t.Errorf("the second one is valid until %s, want %s", until, c.until)
			}
		})
	}
}

func TestNoKeyThatWasKeptSignsWithoutThePresentOne(t *testing.T) {
	r := Compile(subscription(func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}}
	}), getter(kept("ci-signing-seen", oldKey, oldestKey, "2031-01-01T00:00:00Z")), defaults)
	if r.Hold != v1alpha1.ReasonSecretNotFound || len(r.Keys) != 0 {
		t.Errorf("hold is %q with %d keys", r.Hold, len(r.Keys))
	}
}

func TestNobodyNamesTheSecretWithTheKeysThatWereSeen(t *testing.T) {
	seen := kept("ci-signing-seen", oldKey, "", "")
	r := Compile(subscription(func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: seen.Name}}
	}), getter(seen), defaults)
	if r.Hold != v1alpha1.ReasonSecretNotReadable {
		t.Errorf("hold is %q (%s)", r.Hold, r.HoldDetail)
	}
	if !metav1.IsControlledBy(seen, subscription(nil)) {
		t.Error("the Secret is not the subscription's, so this shows nothing")
	}
}
