// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxTypeLength and MaxSourceLength bound an event's type (bytes) and source (characters).
const (
	MaxTypeLength   = 128
	MaxSourceLength = 256
)

// maxMistakes is how many mistakes a refusal of one event lists. A person mends what they see and sends again; a text
// that is made to be wrong in 100,000 places must not cost an answer of as many lines.
const maxMistakes = 16

// field is a field of the envelope.
type field int

const (
	fieldType field = iota
	fieldSource
	fieldData
	fieldMetadata
	fieldID
	fieldTimestamp
	numFields
)

var fieldNames = [numFields]string{"type", "source", "data", "metadata", "id", "timestamp"}

func (f field) required() bool {
	return f <= fieldData
}

// Parse reads one event in one pass that does not decode data or metadata, and fills in what the publisher may leave
// out: a new id, and now (to the millisecond) as the timestamp. null counts as left out.
//
// The errors are *SyntaxError for a text that is not JSON or not UTF-8, and *InvalidError, with everything that is
// wrong, for JSON that is not an event: Parse is strict, and a field that it does not know is an error. Beyond 16
// mistakes it stops reading, and a last entry for the event as a whole says so. Whether the type is known is the
// Catalogue's to say.
func Parse(raw []byte, now time.Time) (Event, error) {
	if err := checkUTF8(raw); err != nil {
		return Event{}, err
	}
	p := parser{scanner: scanner{in: raw, maxDepth: MaxDepth}}
	if err := p.envelope(); err != nil {
		return Event{}, err
	}
	e := p.event(now)
	if p.full() {
		p.wrong = append(p.wrong, FieldError{Message: fmt.Sprintf("there may be more: only the first %d mistakes are listed",
			maxMistakes)})
	}
	if len(p.wrong) > 0 {
		return Event{}, &InvalidError{Fields: p.wrong}
	}
	return e, nil
}

type parser struct {
	scanner
	values [numFields][]byte // nil: left out
	wrong  []FieldError      // at most maxMistakes
}

func (p *parser) refuse(name, message string) {
	if !p.full() {
		p.wrong = append(p.wrong, FieldError{Field: name, Message: message})
	}
}

func (p *parser) full() bool {
	return len(p.wrong) == maxMistakes
}

// envelope splits the top level into values, or stops where there are too many mistakes.
func (p *parser) envelope() error {
	if p.peek() != '{' {
		if _, err := p.value(0); err != nil && !errors.Is(err, errTooDeep) {
			return err
		}
		return invalid("", "an event must be a JSON object with the fields type, source and data")
	}
	p.pos++
	for first := true; ; first = false {
		name, more, err := p.key(first)
		if err != nil {
			return err
		}
		if !more {
			return p.end()
		}
		if err := p.member(name); err != nil || p.full() {
			return err
		}
	}
}

func (p *parser) member(token []byte) error {
	name := plainName(token)
	value, err := p.value(1)
	if errors.Is(err, errTooDeep) {
		return invalid(shorten(string(name)), fmt.Sprintf("is nested deeper than %d levels", MaxDepth))
	}
	if err != nil {
		return err
	}
	f := fieldNamed(name)
	switch {
	case f == numFields:
		p.refuse(shorten(string(name)), unknownField(string(name)))
	case p.values[f] != nil:
		p.refuse(fieldNames[f], "is given twice")
	default:
		p.values[f] = value
	}
	return nil
}

func fieldNamed(name []byte) field {
	for f, known := range fieldNames {
		if string(name) == known {
			return field(f)
		}
	}
	return numFields
}

func unknownField(name string) string {
	if near := nearest(name, fieldNames[:]); near != "" {
		return fmt.Sprintf("is not a field of an event; did you mean %q?", near)
	}
	return "is not a field of an event; put your own fields into data or metadata"
}

// shorten keeps a field name that a publisher made up from filling an answer, or from not showing in it at all.
func shorten(name string) string {
	const most = 64
	if name == "" {
		return `""`
	}
	if len(name) <= most {
		return name
	}
	cut := most
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + "…"
}

// event checks the values and collects what is wrong.
func (p *parser) event(now time.Time) Event {
	for f := range numFields {
		p.checkPresence(f)
	}
	e := Event{
		Type:     p.typeOf(),
		Source:   p.source(),
		Data:     p.object(fieldData),
		Metadata: p.object(fieldMetadata),
	}
	e.ID, e.ClientID = p.id(now)
	e.Timestamp = p.timestamp(now)
	return e
}

// checkPresence makes null the same as left out.
func (p *parser) checkPresence(f field) {
	if string(p.values[f]) == "null" {
		p.values[f] = nil
	}
	if p.values[f] == nil && f.required() && !p.refused(f) {
		p.refuse(fieldNames[f], "is required")
	}
}

func (p *parser) refused(f field) bool {
	for _, w := range p.wrong {
		if w.Field == fieldNames[f] {
			return true
		}
	}
	return false
}

// text decodes a string field; false where it is left out or was refused.
func (p *parser) text(f field) (string, bool) {
	value := p.values[f]
	if value == nil {
		return "", false
	}
	if value[0] != '"' {
		p.refuse(fieldNames[f], "must be a string")
		return "", false
	}
	return unquote(value), true
}

func (p *parser) typeOf() string {
	text, given := p.text(fieldType)
	if given && !ValidType(text) {
		p.refuse("type", fmt.Sprintf("must be two words with a dot between, such as release.completed: "+
			"lower-case letters, digits and underscores, at most %d characters", MaxTypeLength))
	}
	return text
}

func (p *parser) source() string {
	text, given := p.text(fieldSource)
	if n := utf8.RuneCountInString(text); given && (n == 0 || n > MaxSourceLength) {
		p.refuse("source", fmt.Sprintf("must have 1 to %d characters", MaxSourceLength))
	}
	return text
}

func (p *parser) object(f field) []byte {
	value := p.values[f]
	if value != nil && value[0] != '{' {
		p.refuse(fieldNames[f], "must be a JSON object")
	}
	return value
}

func (p *parser) id(now time.Time) (id string, byClient bool) {
	text, given := p.text(fieldID)
	if !given {
		return newIDAt(now), false
	}
	if !validID(text) {
		p.refuse("id", fmt.Sprintf("must have 1 to %d characters of A-Z a-z 0-9 . _ : / + = @ ~ -", MaxIDLength))
	}
	return text, true
}

func (p *parser) timestamp(now time.Time) time.Time {
	text, given := p.text(fieldTimestamp)
	if !given {
		return now.UTC().Truncate(time.Millisecond)
	}
	t, ok := parseTime(text)
	if !ok {
		p.refuse("timestamp", "must be a time as in RFC 3339, such as 2025-11-30T10:30:00Z")
	}
	return t
}

// parseTime reads RFC 3339 without the two liberties of time.Parse (an hour of one digit, a comma before the fraction),
// and returns the time in UTC if its year can be written in four digits there.
func parseTime(text string) (time.Time, bool) {
	const hour = len("2006-01-02T15")
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || text[hour] != ':' || strings.ContainsRune(text, ',') {
		return time.Time{}, false
	}
	t = t.UTC()
	return t, t.Year() >= 1 && t.Year() <= 9999
}

// ValidType reports whether t has the form of an event type: word.word in lower-case letters, digits and underscores.
func ValidType(t string) bool {
	if len(t) > MaxTypeLength {
		return false
	}
	dot := -1
	for i := range len(t) {
		switch c := t[i]; {
		case c == '.' && dot < 0:
			dot = i
		case !wordByte(c):
			return false
		}
	}
	return dot > 0 && dot < len(t)-1
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || isDigit(c) || c == '_'
}
