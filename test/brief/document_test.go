// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nexus.io/webhooks/test/fences"
)

const documentPath = "testdata/webhooks.md"

// document is the users' document. Each of its blocks is taken by the test that runs it, so that none is forgotten.
type document struct {
	text   string
	fences []fences.Fence
	taken  map[int]bool // by line
}

func readDocument(t *testing.T) *document {
	t.Helper()
	text, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	all, err := fences.Read(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	return &document{text: string(text), fences: all, taken: map[int]bool{}}
}

// block takes the only block of a language below a heading.
func (d *document) block(t *testing.T, heading, language string) string {
	t.Helper()
	var found []fences.Fence
	for _, f := range d.fences {
		if f.Heading == heading && f.Language == language {
			found = append(found, f)
			d.taken[f.Line] = true
		}
	}
	if len(found) != 1 {
		t.Fatalf("the document has %d blocks of %q below %q, want 1", len(found), language, heading)
	}
	return found[0].Text
}

// file takes a block as a file, for a program to read.
func (d *document) file(t *testing.T, heading, language string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "example."+language)
	if err := os.WriteFile(path, []byte(d.block(t, heading, language)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// comment is how the document explains its JSON, which has no comments.
var comment = regexp.MustCompile(`(?m)(^|\s)//.*$`)

// object takes a block of JSON.
func (d *document) object(t *testing.T, heading string) map[string]any {
	t.Helper()
	return parsed(t, comment.ReplaceAllString(d.block(t, heading, "json"), ""))
}

// example takes the data of an event from the document.
func (d *document) example(t *testing.T, eventType string) json.RawMessage {
	t.Helper()
	var found struct{ Data json.RawMessage }
	if err := json.Unmarshal([]byte(d.block(t, eventType, "json")), &found); err != nil {
		t.Fatal(err)
	}
	return found.Data
}

func parsed(t *testing.T, text string) (found map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return found
}

// rows returns the cells of the table below a heading, without its head. Backquotes are left out.
func (d *document) rows(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	_, section, found := strings.Cut(d.text, "# "+heading+"\n")
	if !found {
		t.Fatalf("the document has no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	for line := range strings.Lines(section) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.Trim(cell, " `"))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 2 {
		t.Fatalf("there is no table below %q", heading)
	}
	return rows[1:]
}

// sameShape wants every field of an example in an answer, with the same type.
func sameShape(t *testing.T, at string, example, answer any) {
	t.Helper()
	fields, isObject := example.(map[string]any)
	if !isObject {
		if a, b := kind(example), kind(answer); a != b {
			t.Errorf("%s is %s, the document shows %s", at, b, a)
		}
		return
	}
	got, isObject := answer.(map[string]any)
	if !isObject {
		t.Errorf("%s is %s, the document shows an object", at, kind(answer))
		return
	}
	for name, value := range fields {
		field, has := got[name]
		if !has {
			t.Errorf("%s.%s is missing", at, name)
			continue
		}
		sameShape(t, at+"."+name, value, field)
	}
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

// allTaken fails for what no test ran.
func (d *document) allTaken(t *testing.T) {
	t.Helper()
	for _, f := range d.fences {
		if !d.taken[f.Line] {
			t.Errorf("nothing runs the block at %s", f)
		}
	}
}
