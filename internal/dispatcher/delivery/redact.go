// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"slices"
	"strings"

	"nexus.io/webhooks/internal/routing"
)

const (
	// shortestSecret is the length from which a secret is looked for, in bytes: what is shorter occurs by chance.
	shortestSecret = 4
	// shortestWord is the same for a word of one, such as the token behind Bearer.
	shortestWord = 8
)

var redacted = []byte("[redacted]")

// WithoutSecrets is the beginning of an answer, as an Exchange has it, without what the route has from Secrets, in case
// the endpoint repeats what it was sent: whole or a word of it, as it is or as JSON, URLs and base64 write it. Where
// the beginning was cut, its end may be that of a secret's beginning, and is left out too.
func WithoutSecrets(body []byte, route *routing.Route) []byte {
	if len(body) == 0 {
		return body
	}
	isCut, longest := len(body) == maxSnippet, len(body)
	if isCut {
		longest = math.MaxInt
	}
	for _, secret := range secretsOf(route, longest) {
		body = without(body, secret, isCut)
	}
	return body
}

// secretsOf are the texts that must not show, longest first: what holds another goes whole. Those of secrets above
// longest bytes are left out, as no form is shorter than its secret: most answers are short, and cost nothing so.
func secretsOf(route *routing.Route, longest int) [][]byte {
	var all [][]byte
	for _, key := range route.Keys {
		if len(key) <= longest {
			all = appendForms(all, string(key))
		}
	}
	for _, h := range route.Headers {
		if !h.Secret {
			continue
		}
		if len(h.Value) <= longest {
			all = appendForms(all, h.Value)
		}
		if words := strings.Fields(h.Value); len(words) > 1 {
			for _, word := range words {
				if len(word) >= shortestWord && len(word) <= longest {
					all = appendForms(all, word)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b []byte) int { return len(b) - len(a) })
	return all
}

// appendForms appends a secret as it is and as it may be written elsewhere.
func appendForms(all [][]byte, secret string) [][]byte {
	if len(secret) < shortestSecret {
		return all
	}
	for _, form := range []string{
		secret, inJSON(secret, false), inJSON(secret, true), url.QueryEscape(secret), url.PathEscape(secret),
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "="),
		strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(secret)), "="),
	} {
		if !slices.ContainsFunc(all, func(known []byte) bool { return string(known) == form }) {
			all = append(all, []byte(form))
		}
	}
	return all
}

// inJSON is a text as it stands between the quotes of JSON.
func inJSON(text string, forHTML bool) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(forHTML)
	if encoder.Encode(text) != nil {
		return text // not reached: every string has a form
	}
	return strings.TrimSuffix(b.String()[1:], "\"\n")
}

func without(body, secret []byte, isCut bool) []byte {
	if bytes.Contains(body, secret) {
		body = bytes.ReplaceAll(body, secret, redacted)
	}
	for n := min(len(secret)-1, len(body)); isCut && n > 0; n-- {
		if bytes.HasSuffix(body, secret[:n]) {
			return append(body[:len(body)-n:len(body)-n], redacted...)
		}
	}
	return body
}
