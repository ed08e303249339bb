// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuiltinCatalogueHasTheTwentyFourTypes(t *testing.T) {
	c := Builtin()
	types := c.Types()
	if len(types) != 24 {
		t.Errorf("%d types, want 24", len(types))
	}
	for _, info := range types {
		if !ValidType(info.Type) || !c.Knows(info.Type) || info.Category == "" || info.Description == "" {
			t.Errorf("%+v is incomplete", info)
		}
	}
	want := TypeInfo{"system.orchestrator_error", "System", "Orchestrator error occurred"}
	if last := types[23]; last != want {
		t.Errorf("last is %+v, want %+v", last, want)
	}
	types[0].Type = "changed.outside"
	if !c.Knows("release.created") || c.Types()[0].Type != "release.created" {
		t.Error("a caller can change the catalogue")
	}
}

func catalogueFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "types.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadCatalogueAddsTheFilesTypes(t *testing.T) {
	for name, text := range map[string]string{
		"YAML": "eventTypes:\n- {type: order.paid, category: Shop, description: Paid}\n" +
			"- {type: build.failed, category: CI, description: Red}\n",
		"JSON": `{"eventTypes":[{"type":"order.paid","category":"Shop","description":"Paid"},` +
			`{"type":"build.failed","category":"CI","description":"Red"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := LoadCatalogue(catalogueFile(t, text))
			if err != nil {
				t.Fatal(err)
			}
			types := c.Types()
			want := []TypeInfo{{"build.failed", "CI", "Red"}, {"order.paid", "Shop", "Paid"}}
			if diff := cmp.Diff(want, []TypeInfo{types[7], types[24]}); diff != "" || len(types) != 25 {
				t.Errorf("%d types (-want +got):\n%s", len(types), diff)
			}
			if !c.Knows("order.paid") || !c.KnowsPattern("order.*") || c.Nearest("oder.paid") != "order.paid" {
				t.Error("the file's type is not known everywhere")
			}
		})
	}
	if builtinTypes[7].Category != "Build" {
		t.Error("the file changed the built-in types")
	}
	if c, err := LoadCatalogue(""); err != nil || len(c.Types()) != 24 {
		t.Errorf("no file: %v, %v", c, err)
	}
}

func TestLoadCatalogueNamesWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"eventTypes: 5":                                  "parse: ",
		"types: []":                                      `unknown field "types"`,
		"eventTypes: [{type: a.b, categry: x}]":          `unknown field "categry"`,
		"eventTypes: [{type: a.b}, {type: A.b}]":         `eventTypes[1]: type "A.b" must be two words`,
		"eventTypes: [{type: a.b}, {type: a.b}]":         `eventTypes[1]: type "a.b" is listed twice`,
		"eventTypes: [{category: x, description: y}]":    `eventTypes[0]: type "" must be two words`,
		"eventTypes: [{type: release.*, category: all}]": `eventTypes[0]: type "release.*" must be two words`,
	} {
		path := catalogueFile(t, text)
		_, err := LoadCatalogue(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v\nwant it to name %s and say %s", text, err, path, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	if _, err := LoadCatalogue(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: error %v", err)
	}
}

func TestKnowsPattern(t *testing.T) {
	for pattern, want := range map[string]bool{
		"*": true, "release.*": true, "release.failed": true, "system.*": true,
		"releases.*": false, "release.fail": false, "release": false, "*.failed": false, "": false, ".*": false,
	} {
		if got := Builtin().KnowsPattern(pattern); got != want {
			t.Errorf("%q: %v, want %v", pattern, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for written, want := range map[string]string{
		"relaese.completed":        "release.completed",
		"release.complete":         "release.completed",
		"Release.Completed":        "release.completed",
		"build.failure":            "build.failed",
		"build_failed":             "build.failed",
		"deploy.failed":            "deployment.failed",
		"security.vulnerability":   "",
		"relases.*":                "release.*",
		"deployments.*":            "deployment.*",
		"something.else":           "",
		"x":                        "",
		"":                         "",
		strings.Repeat("a.b", 100): "",
	} {
		if got := Builtin().Nearest(written); got != want {
			t.Errorf("%q: %q, want %q", written, got, want)
		}
	}
}
