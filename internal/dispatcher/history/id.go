// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// UUID is the binary form of a delivery's id. Its bytes sort as its text does, which is by time.
type UUID [16]byte

var errID = errors.New("not a delivery id: 32 lower-case hexadecimal digits in groups of 8-4-4-4-12, UUID version 7")

// ParseID reads a delivery's id, a UUID of version 7 in its canonical, lower-case form.
func ParseID(text string) (UUID, error) {
	var id UUID
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return UUID{}, errID
	}
	for i, from := 0, 0; i < len(id); i, from = i+1, from+2 {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			from++ // a hyphen anywhere else is no digit
		}
		high, low := digit(text[from]), digit(text[from+1])
		if high > 15 || low > 15 {
			return UUID{}, errID
		}
		id[i] = high<<4 | low
	}
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return UUID{}, errID
	}
	return id, nil
}

// digit is the value of a lower-case hexadecimal digit, and above 15 for anything else.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	default:
		return 0xff
	}
}

// FirstID is the smallest id that a delivery of t, or of a later time, may have; ids end in the year 10889. It is not
// itself a delivery's id, but it sorts among them.
func FirstID(t time.Time) UUID {
	const last = 1<<48 - 1
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	ms = min(max(ms, 0), last)
	var id UUID
	binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	return id
}

// Time is when the id was made, in milliseconds, UTC.
func (id UUID) Time() time.Time {
	ms := binary.BigEndian.Uint64(id[:8]) >> 16
	return time.UnixMilli(int64(ms)).UTC()
}

// String is the canonical form.
func (id UUID) String() string {
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
