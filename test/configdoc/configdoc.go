// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package configdoc holds docs/configuration.md to the settings that the programs really have.
//
// Each program's test calls Check. `go test -p=1 ./cmd/... -run=TestSettingsAreDocumented -update` writes the tables
// anew.
package configdoc

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/settings"
)

var update = flag.Bool("update", false, "write the settings to docs/configuration.md")

// Check fails unless the part of the document between the program's markers is what its settings say.
func Check(t *testing.T, program string, s *settings.Set) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(file), "..", "..", "docs", "configuration.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf("<!-- begin %s -->\n", program), fmt.Sprintf("\n<!-- end %s -->", program)
	before, rest, found := strings.Cut(string(text), begin)
	is, after, complete := strings.Cut(rest, end)
	if !found || !complete {
		t.Fatalf("%s lacks the lines %q and %q", path, begin, end)
	}
	var want bytes.Buffer
	s.Markdown(&want)
	switch {
	case is == want.String():
	case *update:
		if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is out of date about %s: run go test -p=1 ./cmd/... -run=TestSettingsAreDocumented -update",
			path, program)
	}
}
