// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"testing"
)

func TestAttributesComeFromDataElseFromMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		data, metadata string
		want           Attributes
	}{
		"none": {`{}`, ``, Attributes{}},
		"from data": {`{"project":"P","team":"T","severity":"S"}`,
			`{"project":"x","team":"x","severity":"x"}`, Attributes{"P", "T", "S"}},
		"from metadata": {`{"a":1}`, `{"severity":"S","team":"T","project":"P"}`, Attributes{"P", "T", "S"}},
		"from both":     {`{"severity":"S"}`, `{"project":"P","severity":"x"}`, Attributes{"P", "", "S"}},
		"not a string": {`{"project":5,"team":null,"severity":["high"]}`,
			`{"project":"P"}`, Attributes{"P", "", ""}},
		"empty string":       {`{"project":""}`, `{"project":"P"}`, Attributes{"P", "", ""}},
		"deeper levels":      {`{"a":{"project":"x"},"b":[{"team":"x"}],"project":"P"}`, ``, Attributes{"P", "", ""}},
		"the name as a text": {`{"a":"project","b":"\"team\":\"x\""}`, ``, Attributes{}},
		"escaped name":       {`{"proj\u0065ct":"P"}`, ``, Attributes{"P", "", ""}},
		"escaped value":      {`{"project":"N\u0045XUS \"\\\/ \ud83d\ude00"}`, ``, Attributes{`NEXUS "\/ 😀`, "", ""}},
		"the last counts":    {`{"project":"x","project":"P"}`, ``, Attributes{"P", "", ""}},
		"other case":         {`{"Project":"x"}`, ``, Attributes{}},
		"white space":        {"{ \"team\"\t:\n \"T\" , \"a\" : 1 }", ``, Attributes{"", "T", ""}},
		"not an object":      {`["project"]`, `5`, Attributes{}},
	} {
		t.Run(name, func(t *testing.T) {
			e := Event{Data: json.RawMessage(c.data), Metadata: json.RawMessage(c.metadata)}
			if got := e.Attributes(); got != c.want {
				t.Errorf("attributes %+v, want %+v", got, c.want)
			}
		})
	}
}
