// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package signing_test

import (
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/internal/signing"
)

const (
	secret    = "6b1f0d9c2e7a4835b6d1f0a9c8e7d6b5a4938271605f4e3d2c1b0a9f8e7d6c5b"
	timestamp = "2025-11-30T10:30:00Z"
	body      = `{"id":"evt_abc123","type":"release.completed","data":{"name":"Grüße, 世界 🚀","n":1e400}}`
)

// The digests were computed with `printf '%s' "$timestamp.$body" | openssl dgst -sha256 -hmac "$secret"`.
func TestSignMatchesKnownVectors(t *testing.T) {
	vectors := map[string]struct{ secret, timestamp, body, want string }{
		"a generated secret and a body beyond ASCII": {
			secret, timestamp, body,
			"sha256=f4fc1aba086f7714c3a3b828b54a229cd88ff478f89536547ec1754adbb643be",
		},
		"an empty body": {
			"k", timestamp, "",
			"sha256=6e3ef8b42f66b1d117c0dc4b68bfd912aaf999bf67a506b83b89fb22642a6346",
		},
		"a secret longer than the block of the hash": {
			strings.Repeat("long-", 40), timestamp, "{}",
			"sha256=98b25d738b73b4a31a163465c5b9f036639301d6d5832d399e478409a1434b19",
		},
	}
	for name, v := range vectors {
		t.Run(name, func(t *testing.T) {
			if got := signing.Sign([]byte(v.secret), v.timestamp, []byte(v.body)); got != v.want {
				t.Errorf("Sign = %s, want %s", got, v.want)
			}
		})
	}
}

func TestVerifyTellsRightFromWrong(t *testing.T) {
	good := signing.Sign([]byte(secret), timestamp, []byte(body))
	cases := map[string]struct {
		secret, timestamp, body, signature string
		want                               bool
	}{
		"as signed":                 {secret, timestamp, body, good, true},
		"without the algorithm":     {secret, timestamp, body, strings.TrimPrefix(good, signing.Prefix), true},
		"another secret":            {secret + "0", timestamp, body, good, false},
		"another timestamp":         {secret, "2025-11-30T10:30:01Z", body, good, false},
		"another body":              {secret, timestamp, body + " ", good, false},
		"the dot moved":             {secret, timestamp + ".", body[1:], good, false},
		"upper case":                {secret, timestamp, body, strings.ToUpper(good), false},
		"cut short":                 {secret, timestamp, body, good[:len(good)-1], false},
		"something after it":        {secret, timestamp, body, good + "0", false},
		"another algorithm's name":  {secret, timestamp, body, "sha1=" + good[len(signing.Prefix):], false},
		"the algorithm named twice": {secret, timestamp, body, signing.Prefix + good, false},
		"nothing":                   {secret, timestamp, body, "", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := signing.Verify([]byte(c.secret), c.timestamp, []byte(c.body), c.signature); got != c.want {
				t.Errorf("Verify = %v, want %v", got, c.want)
			}
		})
	}
}

func TestTimestampIsUTCWithWholeSeconds(t *testing.T) {
	kathmandu := time.FixedZone("NPT", 5*3600+45*60)
	at := time.Date(2025, 11, 30, 16, 15, 0, 999_999_999, kathmandu)
	if got := signing.Timestamp(at); got != timestamp {
		t.Errorf("Timestamp = %q, want %q", got, timestamp)
	}
}

func FuzzSignVerify(f *testing.F) {
	f.Add([]byte(secret), timestamp, []byte(body), byte(1))
	f.Add([]byte{}, "", []byte{}, byte(0x80))
	f.Fuzz(func(t *testing.T, secret []byte, timestamp string, body []byte, flip byte) {
		signature := signing.Sign(secret, timestamp, body)
		if !signing.Verify(secret, timestamp, body, signature) {
			t.Fatalf("own signature %s is not verified", signature)
		}
		if flip == 0 || len(body) == 0 {
			return
		}
		changed := append([]byte(nil), body...)
		changed[int(flip)%len(changed)] ^= flip
		if signing.Verify(secret, timestamp, changed, signature) {
			t.Fatalf("signature %s verified for a changed body", signature)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	payload := []byte(strings.Repeat("x", 1024))
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		signing.Sign([]byte(secret), timestamp, payload)
	}
}
