// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"crypto/rand"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

const (
	maxSlug    = 40
	suffixSize = 5
)

// slug makes a resource's name of what people call it: at most 40 of a-z, 0-9 and hyphens, with a letter or digit at
// both ends. What has none of these is called "subscription".
func slug(name string) string {
	var out strings.Builder
	for _, r := range norm.NFKD.String(strings.ToLower(name)) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			out.WriteRune(r)
		case unicode.Is(unicode.Mn, r): // the accent of the letter before
		case out.Len() > 0 && !strings.HasSuffix(out.String(), "-"):
			out.WriteByte('-')
		}
	}
	text := out.String()
	text = strings.Trim(text[:min(len(text), maxSlug)], "-")
	if text == "" {
		return "subscription"
	}
	return text
}

// another makes a further name of a slug that is taken.
func another(slug string) string {
	return slug + "-" + strings.ToLower(rand.Text()[:suffixSize])
}
