// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"strings"
	"testing"
)

func TestSelectKindsKeepsOnlyTheseKindsAndAllOfThem(t *testing.T) {
	const manifests = `apiVersion: v1
kind: Namespace
metadata:
  name: one
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: two
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: three
`
	got, err := selectKinds(manifests, []string{"Namespace", "ServiceAccount"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `---
apiVersion: v1
kind: Namespace
metadata:
  name: one
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: three
`
	if got != want {
		t.Errorf("selectKinds() = %s, want %s", got, want)
	}
	if _, err := selectKinds("kind: [", nil); err == nil || !strings.Contains(err.Error(), "rendered manifests") {
		t.Errorf("selectKinds() of what is no YAML = %v", err)
	}
}

func TestHintsCallAKubectlThatIsThere(t *testing.T) {
	o := complete(t)
	t.Setenv("PATH", t.TempDir())
	if got := hints(&o); !strings.Contains(got, o.asset("kubectl")+" --kubeconfig "+o.data("kubeconfig")) {
		t.Errorf("without a kubectl on the PATH the hints are %s", got)
	}
	t.Setenv("PATH", o.Assets)
	if got := hints(&o); !strings.Contains(got, "    kubectl --kubeconfig") {
		t.Errorf("with a kubectl on the PATH the hints are %s", got)
	}
}
