// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2025, 11, 30, 10, 30, 0, 123456789, time.FixedZone("", 3600))

func TestParseKeepsWhatThePublisherSent(t *testing.T) {
	raw := ` {
  "type" : "release.completed", "source":"orche\u0073trator",
  "data": { "z":1, "a" : 12345678901234567890.10, "ü":"\u00fc\/",
    "e":1E400 }, "metadata":{"team":"platform"  },
  "id":"rel-1/2@x", "timestamp":"2025-11-30T11:30:00.5+01:00" }
`
	got, err := Parse([]byte(raw), now)
	if err != nil {
		t.Fatal(err)
	}
	want := Event{
		ID: "rel-1/2@x", Type: "release.completed", Source: "orchestrator", ClientID: true,
		Timestamp: time.Date(2025, 11, 30, 10, 30, 0, 500_000_000, time.UTC),
		Data:      []byte("{ \"z\":1, \"a\" : 12345678901234567890.10, \"ü\":\"\\u00fc\\/\",\n    \"e\":1E400 }"),
		Metadata:  []byte(`{"team":"platform"  }`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	body := `{"id":"rel-1/2@x","type":"release.completed","timestamp":"2025-11-30T10:30:00.5Z",` +
		`"source":"orchestrator","data":` + string(want.Data) + `,"metadata":{"team":"platform"  }}`
	if diff := cmp.Diff(body, string(got.AppendBody(nil))); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

func TestParseFillsInWhatIsLeftOut(t *testing.T) {
	for name, optional := range map[string]string{
		"left out": ``,
		"null":     `,"id":null,"timestamp":null,"metadata":null`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(`{"type":"build.failed","source":"ci","data":{}`+optional+`}`), now)
			if err != nil {
				t.Fatal(err)
			}
			if got.ClientID || !strings.HasPrefix(got.ID, "evt_") || len(got.ID) != 30 {
				t.Errorf("id %q, by client %v: want evt_ and 26 characters of our own", got.ID, got.ClientID)
			}
			want := `{"id":"` + got.ID + `","type":"build.failed","timestamp":"2025-11-30T09:30:00.123Z",` +
				`"source":"ci","data":{},"metadata":{}}`
			if body := string(got.AppendBody(nil)); body != want {
				t.Errorf("body %s\nwant %s", body, want)
			}
		})
	}
}

func nested(levels int) string {
	return strings.Repeat(`{"a":[`, levels/2) + strings.Repeat(`{`, levels%2) +
		strings.Repeat(`}`, levels%2) + strings.Repeat(`]}`, levels/2)
}

func TestParseRefusesWhatIsNotAnEvent(t *testing.T) {
	const good = `"type":"build.failed","source":"ci","data":{}`
	long := strings.Repeat("x", 300)
	cases := map[string]struct{ raw, want string }{
		"array": {`[]`, "an event must be a JSON object with the fields type, source and data"},
		"very deep array": {strings.Repeat("[", 1000),
			"an event must be a JSON object with the fields type, source and data"},
		"nothing in it": {`{}`, "type is required; source is required; data is required"},
		"required null": {`{"type":null,"source":null,"data":null}`,
			"type is required; source is required; data is required"},
		"wrong kinds": {`{"type":1,"source":[],"data":"x"}`,
			"type must be a string; source must be a string; data must be a JSON object"},
		"optional kinds": {`{` + good + `,"metadata":[],"id":5,"timestamp":5}`,
			"metadata must be a JSON object; id must be a string; timestamp must be a string"},
		"typo": {`{` + good + `,"metadta":{}}`,
			`metadta is not a field of an event; did you mean "metadata"?`},
		"typo of a must": {`{"type":"build.failed","sorce":"ci","data":{}}`,
			`sorce is not a field of an event; did you mean "source"?; source is required`},
		"wrong case": {`{` + good + `,"Metadata":{}}`,
			`Metadata is not a field of an event; did you mean "metadata"?`},
		"own field": {`{` + good + `,"build_number":5}`,
			"build_number is not a field of an event; put your own fields into data or metadata"},
		"long own field": {`{` + good + `,"` + long + `":5}`,
			long[:64] + "… is not a field of an event; put your own fields into data or metadata"},
		"empty own field": {`{` + good + `,"":5}`,
			`"" is not a field of an event; put your own fields into data or metadata`},
		"twice":          {`{` + good + `,"source":"other"}`, "source is given twice"},
		"twice, escaped": {`{` + good + `,"sour\u0063e":"other"}`, "source is given twice"},
		"source too long": {`{"type":"a.b","source":"` + long + `","data":{}}`,
			"source must have 1 to 256 characters"},
		"source empty": {`{"type":"a.b","source":"","data":{}}`, "source must have 1 to 256 characters"},
		"id empty": {`{` + good + `,"id":""}`,
			"id must have 1 to 128 characters of A-Z a-z 0-9 . _ : / + = @ ~ -"},
		"id with a space": {`{` + good + `,"id":"a b"}`,
			"id must have 1 to 128 characters of A-Z a-z 0-9 . _ : / + = @ ~ -"},
		"id too long": {`{` + good + `,"id":"` + long[:129] + `"}`,
			"id must have 1 to 128 characters of A-Z a-z 0-9 . _ : / + = @ ~ -"},
		"time no zone": {`{` + good + `,"timestamp":"2025-11-30T10:30:00"}`,
			"timestamp must be a time as in RFC 3339, such as 2025-11-30T10:30:00Z"},
		"time with comma": {`{` + good + `,"timestamp":"2025-11-30T10:30:00,5Z"}`,
			"timestamp must be a time as in RFC 3339, such as 2025-11-30T10:30:00Z"},
		"time one digit": {`{` + good + `,"timestamp":"2025-11-30T1:30:00Z"}`,
			"timestamp must be a time as in RFC 3339, such as 2025-11-30T10:30:00Z"},
		"year 10000": {`{` + good + `,"timestamp":"9999-12-31T23:59:59-01:00"}`,
			"timestamp must be a time as in RFC 3339, such as 2025-11-30T10:30:00Z"},
		"data too deep": {`{"type":"a.b","source":"x","data":` + nested(64) + `}`,
			"data is nested deeper than 64 levels"},
		"hostile depth": {`{"type":"a.b","source":"x","data":` + strings.Repeat(`[`, 1<<20),
			"data is nested deeper than 64 levels"},
	}
	const typeRule = "type must be two words with a dot between, such as release.completed: " +
		"lower-case letters, digits and underscores, at most 128 characters"
	for _, bad := range []string{"", "build", "build.", ".failed", "a.b.c", "Build.failed", "build.*", "*",
		"bu-ild.failed",
		"bü.failed", "a." + long[:127]} {
		cases["type "+bad] = struct{ raw, want string }{`{"type":"` + bad + `","source":"x","data":{}}`, typeRule}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.raw), now)
			var wrong *InvalidError
			if !errors.As(err, &wrong) {
				t.Fatalf("error %v (%T), want an InvalidError", err, err)
			}
			if diff := cmp.Diff(c.want, wrong.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseListsTheFirstMistakesOfMany(t *testing.T) {
	raw := []byte(`{"a":1` + strings.Repeat(`,"a":1`, 170_000) + `}`)
	var err error
	allocations := testing.AllocsPerRun(1, func() { _, err = Parse(raw, now) })
	var wrong *InvalidError
	if !errors.As(err, &wrong) {
		t.Fatalf("error %v (%T), want an InvalidError", err, err)
	}
	var want []FieldError
	for range 16 {
		want = append(want, FieldError{"a", "is not a field of an event; put your own fields into data or metadata"})
	}
	want = append(want, FieldError{"", "there may be more: only the first 16 mistakes are listed"})
	if diff := cmp.Diff(want, wrong.Fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	shown := strings.Repeat("a "+want[0].Message+"; ", 4) + "and more"
	if diff := cmp.Diff(shown, wrong.Error()); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if allocations > 1000 {
		t.Errorf("the refusal takes %.0f allocations, want few", allocations)
	}
}

func TestParseSaysWhetherItStopped(t *testing.T) {
	for unknown, want := range map[int]struct{ entries, missing int }{
		12: {15, 3}, // and nothing of more
		13: {17, 3},
		16: {17, 0}, // it did not look for the others
		17: {17, 0},
	} {
		_, err := Parse([]byte(`{`+strings.Repeat(`"a":1,`, unknown-1)+`"a":1}`), now)
		var wrong *InvalidError
		if !errors.As(err, &wrong) {
			t.Fatalf("%d unknown fields: error %v (%T), want an InvalidError", unknown, err, err)
		}
		missing := 0
		for _, f := range wrong.Fields {
			if f.Message == "is required" {
				missing++
			}
		}
		if len(wrong.Fields) != want.entries || missing != want.missing {
			t.Errorf("%d unknown fields: %d entries, %d missing fields: %v", unknown, len(wrong.Fields), missing, wrong.Fields)
		}
	}
}

func TestParseAcceptsTheBounds(t *testing.T) {
	id, source := strings.Repeat("A", 128), strings.Repeat("ü", 256)
	typ := "a." + strings.Repeat("9", 126)
	raw := fmt.Sprintf(`{"type":%q,"source":%q,"id":%q,"data":%s}`, typ, source, id, nested(63))
	e, err := Parse([]byte(raw), now)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != id || e.Source != source || e.Type != typ || string(e.Data) != nested(63) {
		t.Errorf("event %+v is not what was sent", e)
	}
}

func TestParseSaysWhereTextIsNotJSON(t *testing.T) {
	for name, c := range map[string]struct{ raw, want string }{
		"empty":           {"", "not JSON: the text ends where a value must be at line 1, column 1"},
		"plain text":      {"hello", "not JSON: unexpected 'h' where a value must be at line 1, column 1"},
		"form":            {"type=x", "not JSON: unexpected 'y' where true must be at line 1, column 2"},
		"byte order mark": {"\ufeff{}", `not JSON: unexpected '\ufeff' where a value must be at line 1, column 1`},
		"second line": {"{\n  \"type\" 5}",
			"not JSON: unexpected '5' where a colon must be at line 2, column 10"},
		"no quotes": {"{type: 5}",
			"not JSON: unexpected 't' where a field name in quotes must be at line 1, column 2"},
		"no comma": {`{"a":1 "b":2}`,
			"not JSON: unexpected '\"' where a comma or '}' must be at line 1, column 8"},
		"comma too many": {`{"a":1,}`,
			"not JSON: unexpected '}' where a field name in quotes must be at line 1, column 8"},
		"comma in array": {`{"a":[1,]}`, "not JSON: unexpected ']' where a value must be at line 1, column 9"},
		"cut short": {`{"data":{"a":`,
			"not JSON: the text ends where a value must be at line 1, column 14"},
		"cut in a string":  {`{"data":"a`, "not JSON: the text ends inside a string at line 1, column 11"},
		"cut in an escape": {`{"data":"\`, "not JSON: the text ends inside a string at line 1, column 11"},
		"control character": {"{\"data\":\"a\nb\"}",
			`not JSON: unexpected '\n' inside a string (write it as an escape) at line 1, column 11`},
		"unknown escape": {`{"data":"\x41"}`, "not JSON: unexpected 'x' in an escape at line 1, column 11"},
		"short escape": {`{"data":"\u12"}`,
			"not JSON: unexpected '\"' where four hexadecimal digits must be at line 1, column 14"},
		"leading zero": {`{"data":01}`,
			"not JSON: unexpected '1' where a comma or '}' must be at line 1, column 10"},
		"number without digit": {`{"data":-}`, "not JSON: unexpected '}' where a value must be at line 1, column 10"},
		"fraction":             {`{"data":1.}`, "not JSON: unexpected '}' in a number at line 1, column 11"},
		"exponent":             {`{"data":1e+}`, "not JSON: unexpected '}' in a number at line 1, column 12"},
		"NaN": {`{"data":NaN}`,
			"not JSON: unexpected 'N' where a value must be at line 1, column 9"},
		"literal": {`{"data":nil}`, "not JSON: unexpected 'i' where null must be at line 1, column 10"},
		"two values": {`{} {}`,
			"not JSON: unexpected '{' after the end of the JSON value at line 1, column 4"},
		"invalid UTF-8":   {"{\"data\":\"ü\xff\"}", "not JSON: invalid UTF-8 at line 1, column 12"},
		"UTF-8 surrogate": {"{\"data\":\"\xed\xa0\x80\"}", "not JSON: invalid UTF-8 at line 1, column 10"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.raw), now)
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("error %v (%T), want a SyntaxError", err, err)
			}
			if diff := cmp.Diff(c.want, syntax.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFingerprintIsOfTheContentOnly(t *testing.T) {
	base := Event{ID: "1", Type: "a.b", Source: "s", Data: []byte(`{}`), Timestamp: now}
	same := base
	same.ID, same.Timestamp, same.ClientID = "2", now.Add(time.Hour), true
	if base.Fingerprint() != same.Fingerprint() || len(base.Fingerprint()) != 32 {
		t.Errorf("fingerprints %q and %q, want the same 32 characters", base.Fingerprint(), same.Fingerprint())
	}
	for name, other := range map[string]Event{
		"type":            {Type: "a.c", Source: "s", Data: []byte(`{}`)},
		"source":          {Type: "a.b", Source: "t", Data: []byte(`{}`)},
		"data":            {Type: "a.b", Source: "s", Data: []byte(`{ }`)},
		"metadata":        {Type: "a.b", Source: "s", Data: []byte(`{}`), Metadata: []byte(`{}`)},
		"moved to source": {Type: "a.", Source: "bs", Data: []byte(`{}`)},
	} {
		if other.Fingerprint() == base.Fingerprint() {
			t.Errorf("another %s has the same fingerprint", name)
		}
	}
}

const kilobyteData = `{"build_id":"build-12345","job_name":"nexus-main","branch":"feature/new-feature",` +
	`"commit_sha":"abc123def","error_message":"Test failures in module X","failed_tests":3,` +
	`"logs_url":"https://jenkins/build/12345/console","severity":"high","steps":[`

func kilobyte() []byte {
	steps := strings.TrimSuffix(strings.Repeat(`{"name":"compile","seconds":12.5,"ok":true},`, 14), ",")
	return []byte(`{"type":"build.failed","source":"orchestrator","data":` + kilobyteData + steps +
		`]},"metadata":{"project":"NEXUS","team":"platform"}}`)
}

func BenchmarkParse(b *testing.B) {
	raw := kilobyte()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttributes(b *testing.B) {
	e, err := Parse(kilobyte(), now)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if e.Attributes().Project != "NEXUS" {
			b.Fatal("project not found")
		}
	}
}

func BenchmarkAppendBody(b *testing.B) {
	e, err := Parse(kilobyte(), now)
	if err != nil {
		b.Fatal(err)
	}
	var body []byte
	b.ReportAllocs()
	for b.Loop() {
		body = e.AppendBody(body[:0])
	}
}
