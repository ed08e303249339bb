// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func texts(t *testing.T, raw string) []string {
	t.Helper()
	events, err := SplitBatch([]byte(raw), 3)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	got := []string{}
	for _, e := range events {
		got = append(got, string(e))
	}
	return got
}

func TestSplitBatchKeepsEachEventsBytes(t *testing.T) {
	want := []string{`{"a" : 1.0}`, `5`, `["x"]`}
	for _, raw := range []string{
		` [ {"a" : 1.0} ,5, ["x"]] `,
		`{"events": [{"a" : 1.0},5,["x"] ] }`,
		`{"\u0065vents":[{"a" : 1.0},5,["x"]]}`,
	} {
		if diff := cmp.Diff(want, texts(t, raw)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
	if got := texts(t, `{"events":[]}`); len(got) != 0 {
		t.Errorf("an empty batch has events: %q", got)
	}
}

func TestSplitBatchLeavesADeepEventToParse(t *testing.T) {
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	if diff := cmp.Diff([]string{`{}`, deep, `{}`}, texts(t, `[{},`+deep+`,{}]`)); diff != "" {
		t.Error(diff)
	}
}

func TestSplitBatchRefusesOtherShapes(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"text":         {`"x"`, `a batch must be an array of events, or {"events": […]}`},
		"no events":    {`{}`, `events is required`},
		"not an array": {`{"events":{}}`, `events must be an array`},
		"single event": {`{"type":"a.b"}`,
			`type is not a field of a batch, which is an array of events, or {"events": […]}`},
		"twice":         {`{"events":[],"events":[]}`, `events is given twice`},
		"too many":      {`[1,2,3,4`, `a batch may hold at most 3 events: send it in parts`},
		"hostile depth": {strings.Repeat("[", 1<<20), `a batch may be nested at most 10000 levels deep`},
		"cut short":     {`[{}`, `not JSON: the text ends where a comma or ']' must be at line 1, column 4`},
		"trailing":      {`[{}] x`, `not JSON: unexpected 'x' after the end of the JSON value at line 1, column 6`},
		"bad element":   {`[{},{"a"]`, `not JSON: unexpected ']' where a colon must be at line 1, column 9`},
		"bad text":      {`nope`, `not JSON: unexpected 'o' where null must be at line 1, column 2`},
		"not UTF-8":     {"[\"\xff\"]", `not JSON: invalid UTF-8 at line 1, column 3`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SplitBatch([]byte(c.raw), 3)
			if err == nil || err.Error() != c.want {
				t.Errorf("error %v\nwant  %s", err, c.want)
			}
			var many *TooManyError
			if errors.As(err, &many) != (name == "too many") {
				t.Errorf("error %T", err)
			}
		})
	}
}
