// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestTheReasonSaysWhatIsOff(t *testing.T) {
	const (
		secret    = "a1b2c3d4e5f60718293a4b5c6d7e8f90"
		timestamp = "2025-11-30T10:30:00Z"
		body      = `{"id":"evt_1","data":{"b":1.10,"a":[1,2]}}`
	)
	right := Sign([]byte(secret), timestamp, []byte(body))
	decoded, err := hex.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(text string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		_, _ = mac.Write([]byte(text))
		return Prefix + hex.EncodeToString(mac.Sum(nil))
	}
	type c struct {
		secret, timestamp, body, signature string
		valid                              bool
		reason                             string
	}
	for name, c := range map[string]c{
		"right":                         {secret, timestamp, body, right, true, "the signature is right"},
		"right without its prefix":      {secret, timestamp, body, right[7:], true, "has sha256= in front"},
		"white space around":            {secret, timestamp, body, right + "\n", false, "white space around the signature"},
		"another algorithm":             {secret, timestamp, body, "sha1=" + right[7:47], false, `begins with "sha1="`},
		"cut off":                       {secret, timestamp, body, right[:30], false, "has 23 characters after sha256=, not 64"},
		"the example of the document":   {secret, timestamp, body, "sha256=abc123", false, "has 6 characters after sha256=, not 64"},
		"nothing":                       {secret, timestamp, body, "", false, "has 0 characters"},
		"upper case":                    {secret, timestamp, body, Prefix + strings.ToUpper(right[7:]), false, "upper-case"},
		"base64":                        {secret, timestamp, body, "sha256=" + strings.Repeat("z", 64), false, "not hexadecimal"},
		"the timestamp with an offset":  {secret, "2025-11-30T11:30:00+01:00", body, right, false, `"2025-11-30T10:30:00Z" was signed`},
		"the timestamp with a fraction": {secret, "2025-11-30T10:30:00.123Z", body, right, false, `"2025-11-30T10:30:00Z" was signed`},
		"the timestamp with a space":    {secret, " " + timestamp, body, right, false, `"2025-11-30T10:30:00Z" was signed`},
		"another timestamp":             {secret, "2025-11-30T10:30:01Z", body, right, false, "another payload, timestamp or secret"},
		"the payload with a line end":   {secret, timestamp, body + "\n", right, false, "white space or line ends"},
		"the payload with spaces":       {secret, timestamp, `{"id": "evt_1", "data": {"b": 1.10, "a": [1, 2]}}`, right, false, "re-serialised"},
		"another payload":               {secret, timestamp, `{}`, right, false, "another payload, timestamp or secret"},
		"a payload that is no JSON":     {secret, timestamp, `{`, right, false, "another payload, timestamp or secret"},
		"the secret with a line end":    {secret + "\n", timestamp, body, right, false, "white space at an end"},
		"the secret decoded":            {secret, timestamp, body, Sign(decoded, timestamp, []byte(body)), false, "decoded from hexadecimal"},
		"another secret":                {"somebody-elses-key", timestamp, body, right, false, "another payload, timestamp or secret"},
		"the payload alone":             {secret, timestamp, body, plain(body), false, "only the payload was signed"},
		"without the dot":               {secret, timestamp, body, plain(timestamp + body), false, "the dot"},
	} {
		valid, reason := Explain([]byte(c.secret), c.timestamp, []byte(c.body), c.signature)
		if valid != c.valid || !strings.Contains(reason, c.reason) || strings.Contains(reason, c.secret) {
			t.Errorf("%s: %v %q, want %v %q", name, valid, reason, c.valid, c.reason)
		}
		if valid != Verify([]byte(c.secret), c.timestamp, []byte(c.body), c.signature) {
			t.Errorf("%s: Verify says otherwise", name)
		}
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("secret", "2025-11-30T10:30:00Z", `{"a":1}`, "sha256=abc123")
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, secret, timestamp, body, signature string) {
		valid, reason := Explain([]byte(secret), timestamp, []byte(body), signature)
		if valid != Verify([]byte(secret), timestamp, []byte(body), signature) || reason == "" {
			t.Errorf("%v %q", valid, reason)
		}
	})
}
