// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"
)

// MaxIDLength bounds the id that a publisher may give an event, in bytes.
const MaxIDLength = 128

const (
	eventPrefix        = "evt_"
	subscriptionPrefix = "sub_"
)

// lowerBase32 sorts as the bytes it encodes do, and has no letter that is easily taken for a digit (Crockford's).
var lowerBase32 = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID returns a new event id: "evt_" and 26 characters that sort by time (48 bits of milliseconds) and cannot be
// guessed (80 random bits).
func NewID() string {
	return newIDAt(time.Now())
}

func newIDAt(now time.Time) string {
	return encodeID(timeAndRandom(now))
}

// IDFromKey returns the event id that an idempotency key stands for: the same key gives the same id on every replica.
func IDFromKey(key string) string {
	return derivedID("idempotency key\x00" + key)
}

// IDFromBatchKey returns the event id that the idempotency key of a batch stands for at one index of it. No key of a
// single event gives the same id, nor that of another batch.
func IDFromBatchKey(key string, index int) string {
	return derivedID("idempotency key of a batch\x00" + strconv.Itoa(index) + "\x00" + key)
}

func derivedID(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return encodeID([16]byte(sum[:16]))
}

func encodeID(id [16]byte) string {
	var text [len(eventPrefix) + 26]byte
	copy(text[:], eventPrefix)
	lowerBase32.Encode(text[len(eventPrefix):], id[:])
	return string(text[:])
}

// NewDeliveryID returns a new delivery id, a UUID of version 7 (RFC 9562, 5.7): sorted by time, 74 random bits.
func NewDeliveryID() string {
	id := timeAndRandom(time.Now())
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	var text [36]byte
	for i, from := 0, 0; from < len(id); from += 2 {
		if from == 4 || from == 6 || from == 8 || from == 10 {
			text[i] = '-'
			i++
		}
		i += hex.Encode(text[i:], id[from:from+2])
	}
	return string(text[:])
}

// timeAndRandom is 48 bits of milliseconds since 1970 and 80 bits from the system's secure source, which never fails.
func timeAndRandom(now time.Time) [16]byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(id[6:])
	return id
}

// SubscriptionID derives a subscription's id from its resource's UID, the same everywhere and always: "sub_" and 12
// hexadecimal characters.
func SubscriptionID(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return subscriptionPrefix + hex.EncodeToString(sum[:6])
}

// validID reports whether a publisher may use id: 1 to MaxIDLength of [A-Za-z0-9._:/+=@~-].
func validID(id string) bool {
	if id == "" || len(id) > MaxIDLength {
		return false
	}
	for i := range len(id) {
		if !idByte(id[i]) {
			return false
		}
	}
	return true
}

func idByte(c byte) bool {
	switch c {
	case '.', '_', ':', '/', '+', '=', '@', '~', '-':
		return true
	}
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}
