// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func seed(f *testing.F, texts ...string) {
	f.Helper()
	for _, text := range texts {
		f.Add([]byte(text))
	}
}

// FuzzScanner holds the grammar against encoding/json's.
func FuzzScanner(f *testing.F) {
	seed(f, `{}`, `[1,-0.5e+3,"a\u00e9\n",true,false,null,{"a":{"b":[]}}]`, `"\ud800"`, `01`, `1.`, `"\x"`,
		`{"a":1,}`,
		"\"\x00\"", `"12345678\"12345678"`, "\"1234567\x1f\"", "\xff", " \t\r\n5 ", `"ünï"`, `tru`, `-`, ``, `[[[]]]`)
	f.Fuzz(func(t *testing.T, text []byte) {
		s := scanner{in: text, maxDepth: 10_000}
		value, err := s.value(0)
		if err == nil {
			err = s.end()
		}
		if !utf8.Valid(text) || errors.Is(err, errTooDeep) {
			return
		}
		if want := json.Valid(text); want != (err == nil) {
			t.Fatalf("%q: error %v, encoding/json says valid=%v", text, err, want)
		}
		if err == nil && !bytes.Equal(value, bytes.Trim(text, " \t\r\n")) {
			t.Fatalf("%q: value %q is not all of it", text, value)
		}
	})
}

// FuzzAttributes holds the one pass against decoding everything.
func FuzzAttributes(f *testing.F) {
	seed(f, `{"project":"P","team":"T","severity":"S"}`, `{"proj\u0065ct":"\ud83d\ude00"}`,
		`{"project":"a","project":5}`,
		`{"a":[{"team":"x"}],"team":"\u0000"}`, `{"team":"`+"\xff"+`"}`, `[]`, `{"project":"\ud800"}`,
		`{"project":"P"`)
	f.Fuzz(func(t *testing.T, text []byte) {
		s := scanner{in: text, maxDepth: MaxDepth}
		if _, err := s.value(0); !utf8.Valid(text) || errors.Is(err, errTooDeep) {
			return
		}
		got := Event{Data: text}.Attributes()
		var all map[string]any
		if json.Unmarshal(text, &all) != nil && got == (Attributes{}) {
			return
		}
		project, _ := all["project"].(string)
		team, _ := all["team"].(string)
		severity, _ := all["severity"].(string)
		if want := (Attributes{project, team, severity}); json.Valid(text) && got != want {
			t.Fatalf("%q: attributes %+v, want %+v", text, got, want)
		}
	})
}

// FuzzParse checks that what is accepted is an event, and that its body has the publisher's bytes.
func FuzzParse(f *testing.F) {
	seed(f, string(kilobyte()), `{"type":"a.b","source":"\"\\\u0001\u2028","data":{"a":1e999}}`,
		`{"type":"a.b","source":"s","data":{},"metadata":null,"id":"x","timestamp":"0001-01-01T00:00:00Z"}`,
		`{"type":"a.b","source":"s","data":{},"timestamp":"9999-12-31T23:59:59.999999999+23:59"}`,
		`{"type":"a.b","source":"\ud800","data":{}}`, `{"typ":"a.b"}`, `[]`, ``)
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Parse(raw, now)
		var sent map[string]json.RawMessage
		if notJSON := json.Unmarshal(raw, &sent); notJSON != nil && err == nil {
			t.Fatalf("%q was accepted, encoding/json: %v", raw, notJSON)
		}
		if err != nil {
			checkRefusal(t, raw, err)
			return
		}
		body := e.AppendBody(nil)
		var got map[string]json.RawMessage
		if err := json.Unmarshal(body, &got); err != nil || !utf8.Valid(body) {
			t.Fatalf("body %q: %v", body, err)
		}
		want := map[string]json.RawMessage{"data": sent["data"], "metadata": sent["metadata"]}
		if e.Metadata == nil {
			want["metadata"] = json.RawMessage("{}")
		}
		if diff := cmp.Diff(want, map[string]json.RawMessage{"data": got["data"], "metadata": got["metadata"]}); diff != "" {
			t.Errorf("data and metadata (-want +got):\n%s", diff)
		}
		var source, sentSource string
		if json.Unmarshal(got["source"], &source) != nil || json.Unmarshal(sent["source"], &sentSource) != nil ||
			source != sentSource {
			t.Errorf("source %q, want %q", source, sentSource)
		}
	})
}

// checkRefusal: a text that encoding/json takes is refused for its schema (or for bytes that are not UTF-8), another
// for its syntax, unless it was refused before its end.
func checkRefusal(t *testing.T, raw []byte, err error) {
	t.Helper()
	var syntax *SyntaxError
	if errors.As(err, &syntax) && json.Valid(raw) && utf8.Valid(raw) {
		t.Errorf("%q is JSON, yet: %v", raw, err)
	}
	var wrong *InvalidError
	if !errors.As(err, &wrong) {
		return
	}
	if len(wrong.Fields) > maxMistakes+1 {
		t.Errorf("%q has a refusal of %d entries", raw, len(wrong.Fields))
	}
	stopped := len(wrong.Fields) > maxMistakes || strings.Contains(err.Error(), "deeper than")
	if !json.Valid(raw) && !stopped && raw[0] == '{' {
		t.Errorf("%q is not JSON, yet: %v", raw, err)
	}
}

// FuzzSplitBatch holds the splitter against encoding/json.
func FuzzSplitBatch(f *testing.F) {
	seed(f, `[]`, `[{"a":1}, 5 ,"x"]`, `{"events":[{},[]]}`, `{"events":[],"events":[]}`, `{"ev\u0065nts":[1]}`, `{}`,
		`[1,2,3,4,5]`, `{"events":{}}`, `[{]`, ` [ ] x`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := SplitBatch(raw, 4)
		if err != nil {
			return
		}
		want := []json.RawMessage{}
		if json.Unmarshal(raw, &want) != nil {
			var wrapped struct{ Events []json.RawMessage }
			if err := json.Unmarshal(raw, &wrapped); err != nil {
				t.Fatalf("%q was accepted: %v", raw, err)
			}
			want = wrapped.Events
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) > 4 {
			t.Errorf("%q (-want +got):\n%s", raw, diff)
		}
	})
}

// FuzzNearest checks that a guess is a candidate and that what is right is its own nearest.
func FuzzNearest(f *testing.F) {
	f.Add("relaese.completed")
	f.Add("")
	f.Add("*")
	c := Builtin()
	f.Fuzz(func(t *testing.T, written string) {
		got := c.Nearest(written)
		if got != "" && !c.KnowsPattern(got) {
			t.Errorf("nearest to %q is %q, which is not known", written, got)
		}
		if c.Knows(written) && got != written {
			t.Errorf("nearest to %q is %q", written, got)
		}
	})
}
