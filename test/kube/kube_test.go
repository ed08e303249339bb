// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"
	"testing"
)

func TestMissingAssetsAreAnErrorThatSaysWhatToDo(t *testing.T) {
	t.Setenv(assetsVariable, "")
	_, err := Start()
	if err == nil || !strings.Contains(err.Error(), "make test") {
		t.Fatalf("Start() = %v, want an error that names the remedy", err)
	}
}
