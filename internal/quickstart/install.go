// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// installed are the kinds of config/default that a cluster without nodes has a use for: the resource, and who may do
// what.
var installed = []string{
	"Namespace", "CustomResourceDefinition", "ServiceAccount",
	"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
}

const crdName = "webhooksubscriptions.webhooks.nexus.io"

// install applies the CRD, the namespace, the ServiceAccounts and their permissions as `make deploy` would.
func install(ctx context.Context, o *Options) error {
	rendered, err := kubectl(ctx, o, "", "kustomize", filepath.Join(o.Config, "default"))
	if err != nil {
		return fmt.Errorf("render the manifests: %w", err)
	}
	manifests, err := selectKinds(rendered, installed)
	if err != nil {
		return err
	}
	if _, err := kubectl(ctx, o, manifests, "apply", "--server-side", "-f", "-"); err != nil {
		return fmt.Errorf("install the manifests: %w", err)
	}
	_, err = kubectl(ctx, o, "", "wait", "--for=condition=Established", "--timeout=30s", "crd/"+crdName)
	return err
}

// selectKinds keeps the objects of these kinds of a stream of YAML documents.
func selectKinds(manifests string, kinds []string) (string, error) {
	var kept strings.Builder
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return kept.String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("read the rendered manifests: %w", err)
		}
		if !slices.Contains(kinds, object.GetKind()) {
			continue
		}
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			return "", fmt.Errorf("write %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		kept.WriteString("---\n")
		kept.Write(text)
	}
}
