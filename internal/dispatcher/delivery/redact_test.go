// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/routing"
)

func TestAnAnswerThatRepeatsASecretIsKeptWithoutIt(t *testing.T) {
	const token, key = `tok"en&42\xyz`, "signing-key-of-the-subscription"
	quoted, err := json.Marshal("Bearer " + token)
	if err != nil {
		t.Fatal(err)
	}
	var plain strings.Builder
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode("Bearer " + token); err != nil {
		t.Fatal(err)
	}
	route := &routing.Route{
		Keys: [][]byte{[]byte(key)},
		Headers: []routing.Header{
			{Name: "Authorization", Value: "Bearer " + token, Secret: true}, {Name: "X-Own", Value: "mine-and-public"},
			{Name: "X-Short", Value: "abc", Secret: true},
		},
	}
	filler := strings.Repeat("y", maxSnippet)
	cases := map[string]struct{ answer, want string }{
		"the whole value":       {"got Bearer " + token + "!", "got [redacted]!"},
		"the token alone":       {"got " + token + "!", "got [redacted]!"},
		"as JSON":               {`{"auth":` + plain.String() + `}`, "{\"auth\":\"[redacted]\"\n}"},
		"as JSON for HTML":      {`{"auth":` + string(quoted) + `}`, `{"auth":"[redacted]"}`},
		"in a query":            {"?t=" + url.QueryEscape(token), "?t=[redacted]"},
		"as base64":             {"b=" + base64.StdEncoding.EncodeToString([]byte(token)), "b=[redacted]=="},
		"the signing key":       {key, "[redacted]"},
		"cut within the token":  {filler[:maxSnippet-9] + token[:9], filler[:maxSnippet-9] + "[redacted]"},
		"cut within the value":  {filler[:maxSnippet-10] + "Bearer tok", filler[:maxSnippet-10] + "[redacted]"},
		"what is no secret":     {"mine-and-public, Bearer, abc", "mine-and-public, Bearer, abc"},
		"nothing":               {"", ""},
		"short and never a cut": {token[:9], token[:9]},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := string(WithoutSecrets([]byte(c.answer), route)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
