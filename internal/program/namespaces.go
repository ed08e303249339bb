// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Namespaces reads names of namespaces by commas: sorted, each once, none for an empty text. The error names the one
// that is none.
func Namespaces(text string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
			return nil, fmt.Errorf("%q is no name of a namespace: write them by commas, as in team-a,team-b", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// CheckNamespaces checks what Namespaces is to read, for settings.Set.
func CheckNamespaces(text string) error {
	_, err := Namespaces(text)
	return err
}
