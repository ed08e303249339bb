// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

func TestAnObjectIsFoundWhetherItIsRoutedOrNot(t *testing.T) {
	b := newBench(t, nil)
	b.ready()
	b.queue.setDown(true) // so that it does not get into the table
	sub := b.subscribe("unrouted")
	eventually(t, "it is found", func() bool { return b.w.Object(idOf(sub)) != nil })
	if found := b.w.Object(idOf(sub)); found.UID != sub.UID || b.route(sub) != nil {
		t.Errorf("found %v, routed %v", found, b.route(sub))
	}
	b.queue.setDown(false)
	eventually(t, "it is routed", func() bool { return b.route(sub) != nil })
	if found := b.w.Object(idOf(sub)); found == nil || found.UID != sub.UID {
		t.Errorf("found %v", found)
	}
	listed := func() bool {
		return slices.ContainsFunc(slices.Collect(b.w.Objects()), func(s *v1alpha1.WebhookSubscription) bool { return s.UID == sub.UID })
	}
	if !listed() || b.w.Object("sub_000000000000") != nil {
		t.Error("the list lacks it, or another is found")
	}
	b.must(b.client.Delete(t.Context(), sub))
	eventually(t, "it is gone", func() bool { return b.w.Object(idOf(sub)) == nil && !listed() })
}

func TestTheCacheKeepsOnlyWhatIsRead(t *testing.T) {
	at := func(second int) *metav1.Time { return &metav1.Time{Time: time.Unix(int64(second), 0)} }
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"a": "b", lastApplied: "{}"},
		ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "kubectl", Time: at(1), FieldsV1: metav1.NewFieldsV1("{}")}, {Manager: "api", Time: at(2)},
			{Manager: "manager", Subresource: "status", Time: at(3)}, {Manager: "old"},
		},
	}}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{"a": "b", v1alpha1.AnnotationRotatedFor: "x", v1alpha1.AnnotationPreviousValidUntil: "y"},
	}}
	for _, o := range []any{sub, secret} {
		if _, err := strip(o); err != nil {
			t.Fatal(err)
		}
	}
	want := metav1.ObjectMeta{
		Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Time: at(2)}},
	}
	if diff := cmp.Diff(want, sub.ObjectMeta); diff != "" {
		t.Errorf("subscription (-want +got):\n%s", diff)
	}
	want = metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationRotatedFor: "x", v1alpha1.AnnotationPreviousValidUntil: "y"}}
	if diff := cmp.Diff(want, secret.ObjectMeta); diff != "" {
		t.Errorf("Secret (-want +got):\n%s", diff)
	}
}
