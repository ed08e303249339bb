// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
)

// manifests reads every document of a file below config/.
func manifests(t *testing.T, path ...string) []*unstructured.Unstructured {
	t.Helper()
	file, err := os.Open(filepath.Join(append([]string{"..", "config"}, path...)...))
	must(t, err)
	defer func() { must(t, file.Close()) }()
	decoder := yaml.NewYAMLOrJSONDecoder(file, 4096)
	var found []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return found
		}
		must(t, err)
		found = append(found, object)
	}
}

func TestTheSampleBecomesReady(t *testing.T) {
	f := newManagedFixture(t)
	for _, sample := range manifests(t, "samples", "webhooks_v1alpha1_webhooksubscription.yaml") {
		sample.SetNamespace(f.namespace)
		strict := client.FieldValidation(metav1.FieldValidationStrict)
		must(t, f.client.Create(f.ctx, sample, strict))
		f.waitReady(sample.GetName())
	}
}

func TestTheDeploymentRunsUnderTheRestrictedProfile(t *testing.T) {
	f := newFixture(t)
	namespace := &corev1.Namespace{}
	must(t, f.client.Get(f.ctx, client.ObjectKey{Name: f.namespace}, namespace))
	namespace.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	must(t, f.client.Update(f.ctx, namespace))
	f.eventually("the profile is enforced", func() error {
		lax := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "lax"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "lax", Image: "lax"}}},
		}
		if err := f.client.Create(f.ctx, lax, client.DryRunAll); err == nil {
			return errors.New("a Pod without a security context is let in")
		}
		return nil
	})

	pods := 0
	for _, object := range manifests(t, "manager", "manager.yaml") {
		if object.GetKind() != "Deployment" {
			continue
		}
		deployment := &appsv1.Deployment{}
		must(t, runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, deployment, true))
		template := deployment.Spec.Template
		pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
		pod.Namespace, pod.Name = f.namespace, deployment.Name
		must(t, f.client.Create(f.ctx, pod, client.DryRunAll))
		pods++
	}
	if pods != 1 {
		t.Errorf("%d Deployments in manager.yaml", pods)
	}
}

func TestTheViewerMayLookAndTheEditorMayChangeAndNeitherReadsSecrets(t *testing.T) {
	f := newFixture(t)
	f.create(f.subscription("cicd"), f.secret("theirs", map[string]string{"secret": someKey}))
	as := func(role string) client.Client {
		manifest := manifests(t, "rbac", "webhooksubscription_"+role+"_role.yaml")
		f.bindTo(role, manifest[0])
		user, err := client.New(cluster.User(t, role), client.Options{Scheme: f.client.Scheme()})
		must(t, err)
		return user
	}
	for role, mayChange := range map[string]bool{"viewer": false, "editor": true, "admin": true} {
		user := as(role)
		sub := &v1alpha1.WebhookSubscription{}
		must(t, user.Get(f.ctx, f.key("cicd"), sub))
		sub.Spec.DisplayName = role
		if err := user.Update(f.ctx, sub); (err == nil) != mayChange {
			t.Errorf("%s changes a subscription: %v", role, err)
		}
		sub.Status.ID = role
		if err := user.Status().Update(f.ctx, sub); err == nil {
			t.Errorf("%s may change the status", role)
		}
		if err := user.Get(f.ctx, f.key("theirs"), &corev1.Secret{}); err == nil {
			t.Errorf("%s may read a Secret", role)
		}
	}
}
