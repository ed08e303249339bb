// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxDepth is how many levels of objects and arrays an event may have, its envelope included.
const MaxDepth = 64

// Event is what a publisher posted, complete with an id and a timestamp.
type Event struct {
	ID        string
	Type      string
	Source    string
	Timestamp time.Time // UTC
	// Data and Metadata are JSON objects, exactly the publisher's bytes; they share the memory that was parsed.
	// Metadata is nil where the publisher gave none.
	Data, Metadata json.RawMessage
	ClientID       bool // the publisher gave the id
}

// AppendBody appends the body of the deliveries: {id, type, timestamp, source, data, metadata} with data and metadata
// byte for byte, and {} for metadata that the publisher left out.
func (e Event) AppendBody(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = AppendString(dst, e.ID)
	dst = append(dst, `,"type":`...)
	dst = AppendString(dst, e.Type)
	dst = append(dst, `,"timestamp":"`...)
	dst = e.Timestamp.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","source":`...)
	dst = AppendString(dst, e.Source)
	dst = append(dst, `,"data":`...)
	dst = append(dst, e.Data...)
	dst = append(dst, `,"metadata":`...)
	if e.Metadata == nil {
		return append(dst, "{}}"...)
	}
	dst = append(dst, e.Metadata...)
	return append(dst, '}')
}

// Fingerprint identifies what the publisher sent: type, source, data and metadata, byte for byte, but not the id and
// the timestamp, which a publisher that repeats itself may make anew. 32 hexadecimal characters.
func (e Event) Fingerprint() string {
	buffer := make([]byte, 0, len(e.Type)+len(e.Source)+len(e.Data)+len(e.Metadata)+4*binary.MaxVarintLen64)
	buffer = appendSized(buffer, e.Type)
	buffer = appendSized(buffer, e.Source)
	buffer = appendSized(buffer, e.Data)
	buffer = appendSized(buffer, e.Metadata)
	sum := sha256.Sum256(buffer)
	return hex.EncodeToString(sum[:16])
}

// appendSized prefixes a part with its length, so that no two lists of parts give the same bytes.
func appendSized[T ~string | ~[]byte](dst []byte, part T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(part)))
	return append(dst, part...)
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r >= utf8.RuneSelf && (r != utf8.RuneError || size > 1) {
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscaped(dst, r)
		i += size
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\n':
		return append(dst, `\n`...)
	case '\t':
		return append(dst, `\t`...)
	}
	dst = append(dst, `\u`...)
	digits := strconv.FormatUint(0x10000|uint64(r), 16) //nolint:gosec // a rune of the basic plane: not negative
	return append(dst, digits[1:]...)
}
