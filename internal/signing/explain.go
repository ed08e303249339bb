// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Explain tells whether signature is that of body at timestamp by secret, as Verify does, and why it is not: a sentence
// without a full stop that says what is off and what to do. It shows nothing of the secret.
func Explain(secret []byte, timestamp string, body []byte, signature string) (valid bool, reason string) {
	if Verify(secret, timestamp, body, signature) {
		if !strings.HasPrefix(signature, Prefix) {
			return true, "the signature is right; in the header it has " + Prefix + " in front"
		}
		return true, "the signature is right"
	}
	if reason := malformed(signature); reason != "" {
		return false, reason
	}
	for _, suspect := range suspects {
		if reason := suspect(secret, timestamp, body, signature); reason != "" {
			return false, reason
		}
	}
	return false, "the signature is that of another payload, timestamp or secret: take the payload byte for byte as it " +
		"came, the text of X-Nexus-Timestamp as it stands, and the subscription's present secret (while a replaced one is " +
		"still valid, X-Nexus-Signature-256-Alt carries the signature by the other)"
}

// malformed says what keeps a text from being a signature at all, "" for nothing.
func malformed(signature string) string {
	digits, prefixed := strings.CutPrefix(signature, Prefix)
	algorithm, _, other := strings.Cut(signature, "=")
	const length = signatureLength - len(Prefix)
	switch {
	case strings.TrimSpace(signature) != signature:
		return "there is white space around the signature: remove it"
	case !prefixed && other:
		return fmt.Sprintf("the signature begins with %.20q, not with %q: take X-Nexus-Signature-256", algorithm+"=", Prefix)
	case len(digits) != length:
		return fmt.Sprintf("the signature has %d characters after %s, not %d: it is cut off, or not in hexadecimal",
			len(digits), Prefix, length)
	case strings.ToLower(digits) != digits:
		return "the signature has upper-case letters: it is hexadecimal in lower case"
	}
	if _, err := hex.DecodeString(digits); err != nil {
		return "the signature is not hexadecimal: it has characters other than 0-9 and a-f"
	}
	return ""
}

// suspects look for what was signed in place of what should have been; they return what they found, "" for nothing.
var suspects = []func(secret []byte, timestamp string, body []byte, signature string) string{
	suspectTimestamp, suspectPayload, suspectSecret, suspectFormula,
}

func suspectTimestamp(secret []byte, timestamp string, body []byte, signature string) string {
	for _, other := range spellings(timestamp) {
		if other != timestamp && Verify(secret, other, body, signature) {
			return fmt.Sprintf("the timestamp is not as it was signed: %q was signed, and %q was given; take the text "+
				"of X-Nexus-Timestamp as it stands", other, timestamp)
		}
	}
	return ""
}

// spellings are other ways to write a timestamp.
func spellings(timestamp string) []string {
	other := []string{strings.TrimSpace(timestamp), strings.ReplaceAll(timestamp, " ", "+")}
	layouts := []string{time.RFC3339Nano, time.RFC1123, "2006-01-02 15:04:05", "2006-01-02T15:04:05.999999999"}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, strings.TrimSpace(timestamp)); err == nil {
			return append(other, Timestamp(at))
		}
	}
	return other
}

func suspectPayload(secret []byte, timestamp string, body []byte, signature string) string {
	trimmed := bytes.TrimSpace(body)
	for _, other := range [][]byte{
		trimmed, append(bytes.Clone(trimmed), '\n'), bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")),
	} {
		if Verify(secret, timestamp, other, signature) {
			return "the payload has other white space or line ends than what was signed: take it byte for byte as it came"
		}
	}
	for _, other := range serialisations(body) {
		if Verify(secret, timestamp, other, signature) {
			return "the payload was re-serialised: its JSON means the same but its bytes differ from what was signed; " +
				"verify the body before it is parsed"
		}
	}
	return ""
}

// serialisations are other ways to write the same JSON.
func serialisations(body []byte) [][]byte {
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil {
		return nil
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil {
		return [][]byte{compact.Bytes()}
	}
	var sorted bytes.Buffer
	encoder := json.NewEncoder(&sorted)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return [][]byte{compact.Bytes()}
	}
	return [][]byte{compact.Bytes(), bytes.TrimSpace(sorted.Bytes())}
}

func suspectSecret(secret []byte, timestamp string, body []byte, signature string) string {
	if trimmed := bytes.TrimSpace(secret); len(trimmed) != len(secret) && Verify(trimmed, timestamp, body, signature) {
		return "the secret has white space at an end that it should not have: remove it"
	}
	if decoded, err := hex.DecodeString(string(secret)); err == nil && Verify(decoded, timestamp, body, signature) {
		return "the secret was decoded from hexadecimal before it signed: use the text itself as the key"
	}
	return ""
}

func suspectFormula(secret []byte, timestamp string, body []byte, signature string) string {
	is := func(signed ...[]byte) bool {
		mac := hmac.New(sha256.New, secret)
		for _, part := range signed {
			write(mac, part)
		}
		return hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(strings.TrimPrefix(signature, Prefix)))
	}
	switch {
	case is(body):
		return "only the payload was signed: sign timestamp + \".\" + payload"
	case is([]byte(timestamp), body):
		return "the dot between timestamp and payload is missing: sign timestamp + \".\" + payload"
	}
	return ""
}
