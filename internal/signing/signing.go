// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package signing makes and checks the signature that every webhook carries, so that a consumer can tell that a
// request came from this installation and was not changed on its way.
//
// It promises that what Sign makes is what consumers compute from the documented formula: HMAC-SHA256, keyed with the
// bytes of the subscription's secret, over timestamp + "." + body, in lower-case hex behind "sha256=". Verify compares
// in constant time.
//
// It must not know requests, routes or Kubernetes objects.
package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"
	"time"
)

// Prefix names the algorithm in front of the hex digits of a signature.
const Prefix = "sha256="

// signatureLength is that of Prefix and 32 bytes in hex.
const signatureLength = len(Prefix) + 2*sha256.Size

// Timestamp renders t as the header X-Nexus-Timestamp: RFC 3339, UTC, whole seconds (2025-11-30T10:30:00Z).
func Timestamp(t time.Time) string {
	return t.UTC().Format(time.RFC3339)
}

// Sign returns the value of X-Nexus-Signature-256 for body at timestamp: "sha256=" and 64 lower-case hex digits.
// The timestamp is signed as it stands, so it has to be the very text of the header.
func Sign(secret []byte, timestamp string, body []byte) string {
	sum := digest(secret, timestamp, body)
	var signature [signatureLength]byte
	hex.Encode(signature[copy(signature[:], Prefix):], sum)
	return string(signature[:])
}

// Verify tells whether signature is that of body at timestamp by secret. As in the functions that consumers run, the
// "sha256=" in front may be missing. Wrong lengths, upper case and anything that is not hex are no signature.
func Verify(secret []byte, timestamp string, body []byte, signature string) bool {
	want := Sign(secret, timestamp, body)[len(Prefix):]
	return hmac.Equal([]byte(want), []byte(strings.TrimPrefix(signature, Prefix)))
}

func digest(secret []byte, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	head := make([]byte, 0, max(len(timestamp)+1, sha256.Size)) // has room for the sum too
	head = append(append(head, timestamp...), '.')
	write(mac, head)
	write(mac, body)
	return mac.Sum(head[:0])
}

// write feeds h, whose Write is documented never to return an error.
func write(h hash.Hash, p []byte) {
	_, _ = h.Write(p)
}
