// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
)

const otherKeyText = "another-key-of-this-subscription"

func TestEndingsComeInTheirOrder(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	a, b, c := key{"ns", "a"}, key{"ns", "b"}, key{"other", "a"}
	e := newEndings()
	if e.next() != nil {
		t.Error("nothing ends, and yet there is something to wait for")
	}
	e.set(b, at(5))
	e.set(a, at(9))
	e.set(c, at(5))
	e.set(a, at(7)) // moved
	steps := []struct {
		at, n int
		want  []key
	}{{4, 10, nil}, {5, 10, []key{b, c}}, {5, 1, []key{b}}, {7, 10, []key{b, c, a}}}
	for _, s := range steps {
		if diff := cmp.Diff(s.want, e.until(at(s.at), s.n), cmp.AllowUnexported(key{})); diff != "" {
			t.Errorf("at %d s, %d at the most (-want +got):\n%s", s.at, s.n, diff)
		}
	}
	for _, k := range []key{a, b, c} {
		e.set(k, time.Time{})
	}
	if e.byTime.Len() != 0 || len(e.times) != 0 {
		t.Error("endings are left behind")
	}
}

// overlap makes a key the previous one of a Secret, as the manager does.
func (b *bench) overlap(secret *corev1.Secret, present, previous string, until time.Time) {
	b.Helper()
	secret.StringData = map[string]string{"secret": present, "previous": previous}
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, v1alpha1.AnnotationPreviousValidUntil, until.Format(time.RFC3339))
	b.must(b.client.Update(b.Context(), secret))
}

func hasKeys(want ...string) func(*routing.Route) bool {
	return func(r *routing.Route) bool {
		var got []string
		for _, k := range r.Keys {
			got = append(got, string(k))
		}
		return cmp.Equal(want, got)
	}
}

func TestThePreviousKeyStopsByTheClockAlone(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("rotated")
	secret := b.key(sub)
	b.ready()
	b.eventuallyRoute(sub, "signs with its key", hasKeys(signingKeyText))
	until := time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second)
	b.overlap(secret, otherKeyText, signingKeyText, until)
	b.eventuallyRoute(sub, "signs with both keys", hasKeys(otherKeyText, signingKeyText))
	b.eventuallyRoute(sub, "signs with the new key alone", hasKeys(otherKeyText))
	if early := time.Until(until); early > 0 {
		t.Errorf("the previous key stopped %s before its time", early)
	}
	if late := time.Since(until); late > 5*time.Second {
		t.Errorf("the previous key stopped %s after its time", late)
	}
}

func TestASecretThatIsEditedWhileNoManagerRunsSignsByBothKeys(t *testing.T) {
	b := newBench(t, nil)
	sub := b.subscribe("own")
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "mine"}}
	b.must(b.client.Update(b.Context(), sub))
	mine := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "mine"},
		Type:       v1alpha1.SecretTypeSigningKey, StringData: map[string]string{"secret": signingKeyText},
	}
	seen := mine.DeepCopy()
	seen.Name = v1alpha1.SeenSecretName("own")
	seen.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(sub, v1alpha1.SubscriptionKind)}
	b.must(b.client.Create(b.Context(), mine))
	b.must(b.client.Create(b.Context(), seen))
	b.ready()
	b.eventuallyRoute(sub, "signs with its key", hasKeys(signingKeyText))

	mine.StringData = map[string]string{"secret": otherKeyText}
	b.must(b.client.Update(b.Context(), mine))
	b.eventuallyRoute(sub, "signs with both keys", func(r *routing.Route) bool {
		return hasKeys(otherKeyText, signingKeyText)(r) && r.PreviousUntil.IsZero()
	})
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	b.overlap(seen, otherKeyText, signingKeyText, until)
	b.eventuallyRoute(sub, "signs with both until the manager's time", func(r *routing.Route) bool {
		return hasKeys(otherKeyText, signingKeyText)(r) && r.PreviousUntil.Equal(until)
	})
	b.must(b.client.Delete(b.Context(), seen))
	b.eventuallyRoute(sub, "signs with the new key alone", hasKeys(otherKeyText))
}
