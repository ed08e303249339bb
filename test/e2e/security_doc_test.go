// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

// TestManifestsOfTheSecurityDocsAreTaken applies each one, without keeping it.
func TestManifestsOfTheSecurityDocsAreTaken(t *testing.T) {
	n := &namespaced{T: t}
	var err error
	n.client, err = stack.NewClient(cluster.Config)
	n.must(err)
	n.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: servedNamespace}})
	n.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: servedNamespace, Name: "ci"}})
	text, err := os.ReadFile(filepath.Join(stack.Root(), "docs", "security.md"))
	n.must(err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) < 3 {
		t.Fatalf("%d manifests in the docs", len(blocks))
	}
	for _, block := range blocks {
		object := &unstructured.Unstructured{}
		n.must(yaml.Unmarshal(block[1], &object.Object))
		if object.GetKind() == "" {
			asSubscription(object)
		}
		strict := client.FieldValidation(metav1.FieldValidationStrict)
		if err := n.client.Create(t.Context(), object, client.DryRunAll, strict); err != nil {
			t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// asSubscription adds to a part of a spec what makes a subscription of it.
func asSubscription(part *unstructured.Unstructured) {
	spec, _, _ := unstructured.NestedMap(part.Object, "spec")
	spec["url"], spec["events"] = "https://endpoint.example", []any{"*"}
	part.Object["spec"] = spec
	part.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	part.SetNamespace(servedNamespace)
	part.SetName("part")
}
