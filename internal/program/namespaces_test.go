// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNamespacesByCommas(t *testing.T) {
	cases := map[string]struct {
		text string
		want []string
	}{
		"nothing":            {"", nil},
		"one":                {"team-a", []string{"team-a"}},
		"several, unordered": {"team-b, team-a,team-b,", []string{"team-a", "team-b"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Namespaces(c.text)
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v, %s", err, diff)
			}
		})
	}
	for _, text := range []string{"*", "Team-A", "a b", "a,b/c", strings.Repeat("a", 64)} {
		if err := CheckNamespaces(text); err == nil || !strings.Contains(err.Error(), "team-a,team-b") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
