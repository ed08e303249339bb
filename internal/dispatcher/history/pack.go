// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
)

// packVersion begins each packed attempt, so that a later form can be told from this one.
const packVersion = 1

// maxPackedHeaders bounds the names and values of the headers of one packed attempt, in bytes.
const maxPackedHeaders = 4096

// Header is a request header as it was sent.
type Header struct{ Name, Value string }

// Names that nearly every request has are packed as one byte. Never change their order.
var packedNames = [...]string{
	"Content-Type", "User-Agent", "X-Nexus-Event", "X-Nexus-Delivery", "X-Nexus-Timestamp", "X-Nexus-Signature-256",
	"X-Nexus-Signature-256-Alt",
}

// Values that need not be kept, or not whole.
const (
	valuePlain     = iota
	valueSignature // sha256= and 64 hexadecimal digits, packed as 32 bytes
	valueJSON      // application/json
	valueEventType // that of the record
	valueID        // that of the record
)

const signaturePrefix = "sha256="

// AppendAttempt packs a, cleaned, behind what is in b: some 150 bytes for a success. url is where the request went.
// headers are those that may be shown, in the place of a.RequestHeaders. What stands in a.Number must be set.
func AppendAttempt(b []byte, a *Attempt, url string, headers []Header) []byte {
	var room [512]byte
	p := append(room[:0], packVersion)
	p = binary.AppendUvarint(p, uint64(max(a.Number, 0)))
	p = binary.AppendVarint(p, a.StartedAt.UnixMicro())
	p = binary.AppendUvarint(p, uint64(max(a.Duration, 0).Microseconds())) //nolint:gosec // not negative
	p = binary.AppendUvarint(p, uint64(max(a.StatusCode, 0)))
	p = append(p, flag(a.ConnectionReused))
	p = appendText(p, text(a.Reason, MaxText))
	p = appendText(p, text(a.Error, MaxText))
	p = appendText(p, string(a.ResponseBody[:min(len(a.ResponseBody), MaxResponseBody)]))
	p = appendText(p, text(a.RemoteAddress, MaxText))
	p = appendText(p, text(url, MaxURL))
	p = appendHeaders(p, headers)
	return append(binary.AppendUvarint(slices.Grow(b, binary.MaxVarintLen64+len(p)), uint64(len(p))), p...)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendHeaders keeps as many as there is room for, in their order.
func appendHeaders(b []byte, headers []Header) []byte {
	room := maxPackedHeaders
	for i, h := range headers {
		if room -= len(h.Name) + len(h.Value); room < 0 || i == MaxHeaders {
			break
		}
		b = appendValue(appendName(b, h.Name), h)
	}
	return b
}

// appendName writes the place of a name that nearly every request has, from 1; of others 0 and the name.
func appendName(b []byte, name string) []byte {
	for i, known := range packedNames {
		if known == name {
			return append(b, byte(i+1))
		}
	}
	return appendText(append(b, 0), text(name, MaxIdentifier))
}

func appendValue(b []byte, h Header) []byte {
	switch {
	case h.Name == "Content-Type" && h.Value == "application/json":
		return append(b, valueJSON)
	case h.Name == "X-Nexus-Event":
		return append(b, valueEventType)
	case h.Name == "X-Nexus-Delivery":
		return append(b, valueID)
	}
	if digits, ok := strings.CutPrefix(h.Value, signaturePrefix); ok && len(digits) == 64 {
		var sum [32]byte
		if _, err := hex.Decode(sum[:], []byte(digits)); err == nil && digits == strings.ToLower(digits) {
			return append(append(b, valueSignature), sum[:]...)
		}
	}
	return appendText(append(b, valuePlain), text(h.Value, MaxText))
}

var errPacked = errors.New("not packed attempts")

// ReadAttempts reads attempts that were packed one behind the other into r, with the RequestURL of the last one. Its
// other fields must be set: what an attempt has in common with its record is not packed.
func ReadAttempts(packed []byte, r *Record) error {
	for len(packed) > 0 {
		n, size := binary.Uvarint(packed)
		if size <= 0 || n > uint64(len(packed)-size) { //nolint:gosec // not negative
			return errPacked
		}
		end := size + int(n) //nolint:gosec // at most the length
		u := unpacker{left: packed[size:end]}
		attempt, url := u.attempt(r)
		if u.broken {
			return errPacked
		}
		r.Attempts = append(r.Attempts, attempt)
		r.RequestURL = url
		packed = packed[end:]
	}
	r.Attempts = inOrder(r.Attempts)
	return nil
}

// unpacker reads what is left, and remembers whether it was not what it must be.
type unpacker struct {
	left   []byte
	broken bool
}

func (u *unpacker) attempt(r *Record) (a Attempt, url string) {
	if u.byte() != packVersion {
		u.broken = true
		return a, ""
	}
	a.Number = u.number()
	a.StartedAt = u.moment()
	a.Duration = time.Duration(u.number()) * time.Microsecond
	a.StatusCode = u.number()
	a.ConnectionReused = u.byte() == 1
	a.Reason, a.Error = u.text(), u.text()
	if body := u.text(); body != "" {
		a.ResponseBody = []byte(body)
	}
	a.RemoteAddress, url = u.text(), u.text()
	for len(u.left) > 0 && !u.broken {
		if a.RequestHeaders == nil {
			a.RequestHeaders = map[string]string{}
		}
		name := u.name()
		a.RequestHeaders[name] = u.value(r)
	}
	return a, url
}

func (u *unpacker) byte() byte {
	if len(u.left) == 0 {
		u.broken = true
		return 0
	}
	b := u.left[0]
	u.left = u.left[1:]
	return b
}

func (u *unpacker) number() int {
	n, size := binary.Uvarint(u.left)
	if size <= 0 || n > math.MaxInt64/1000 {
		u.broken = true
		return 0
	}
	u.left = u.left[size:]
	return int(n)
}

func (u *unpacker) moment() time.Time {
	micros, size := binary.Varint(u.left)
	if size <= 0 {
		u.broken = true
		return time.Time{}
	}
	u.left = u.left[size:]
	return moment(time.UnixMicro(micros))
}

func (u *unpacker) take(n int) []byte {
	if n > len(u.left) {
		u.broken = true
		return nil
	}
	taken := u.left[:n]
	u.left = u.left[n:]
	return taken
}

func (u *unpacker) text() string { return string(u.take(u.number())) }

func (u *unpacker) name() string {
	place := int(u.byte())
	switch {
	case place == 0:
		return u.text()
	case place <= len(packedNames):
		return packedNames[place-1]
	default:
		u.broken = true
		return ""
	}
}

func (u *unpacker) value(r *Record) string {
	switch u.byte() {
	case valuePlain:
		return u.text()
	case valueSignature:
		return signaturePrefix + hex.EncodeToString(u.take(32))
	case valueJSON:
		return "application/json"
	case valueEventType:
		return r.EventType
	case valueID:
		return r.ID
	default:
		u.broken = true
		return ""
	}
}
