// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
)

// errTooDeep ends a scan whose nesting exceeds the scanner's bound.
var errTooDeep = errors.New("nested too deep")

// scanner walks over JSON text (RFC 8259) without decoding it. It checks the grammar strictly; that the text is valid
// UTF-8 is checked once by whoever starts it.
type scanner struct {
	in       []byte
	pos      int
	maxDepth int // levels of objects and arrays; bounds the recursion
}

// peek skips white space and returns the next byte, 0 at the end of the text.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.in); s.pos++ {
		switch c := s.in[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// end reports an error unless only white space is left.
func (s *scanner) end() error {
	if s.peek(); s.pos < len(s.in) {
		return s.unexpected("after the end of the JSON value")
	}
	return nil
}

// value passes over one value and returns its bytes. depth is the number of levels around it.
func (s *scanner) value(depth int) ([]byte, error) {
	c := s.peek()
	start := s.pos
	if err := s.skip(c, depth); err != nil {
		return nil, err
	}
	return s.in[start:s.pos], nil
}

func (s *scanner) skip(c byte, depth int) error {
	switch c {
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case '"':
		_, err := s.string()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) object(depth int) error {
	if err := s.open(depth); err != nil {
		return err
	}
	for first := true; ; first = false {
		_, more, err := s.key(first)
		if err != nil || !more {
			return err
		}
		if err := s.skip(s.peek(), depth); err != nil {
			return err
		}
	}
}

func (s *scanner) array(depth int) error {
	if err := s.open(depth); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.element(first)
		if err != nil || !more {
			return err
		}
		if err := s.skip(s.peek(), depth); err != nil {
			return err
		}
	}
}

// open passes over the bracket that starts level depth.
func (s *scanner) open(depth int) error {
	if depth > s.maxDepth {
		return errTooDeep
	}
	s.pos++
	return nil
}

// key passes over the next name and colon of an object and returns the name with its quotes; false at the object's end.
func (s *scanner) key(first bool) (name []byte, more bool, err error) {
	if more, err := s.separator(first, '}'); err != nil || !more {
		return nil, false, err
	}
	if s.peek() != '"' {
		return nil, false, s.unexpected("where a field name in quotes must be")
	}
	if name, err = s.string(); err != nil {
		return nil, false, err
	}
	if s.peek() != ':' {
		return nil, false, s.unexpected("where a colon must be")
	}
	s.pos++
	return name, true, nil
}

// element stops before the next element of an array; false at the array's end.
func (s *scanner) element(first bool) (more bool, err error) {
	return s.separator(first, ']')
}

func (s *scanner) separator(first bool, end byte) (more bool, err error) {
	switch c := s.peek(); {
	case c == end:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, s.unexpected(fmt.Sprintf("where a comma or %q must be", end))
	}
	s.pos++
	return true, nil
}

// string passes over a string and returns it with its quotes.
func (s *scanner) string() ([]byte, error) {
	start := s.pos
	s.pos++
	for {
		s.plain()
		if s.pos >= len(s.in) {
			return nil, s.unexpected("inside a string")
		}
		switch c := s.in[s.pos]; {
		case c == '"':
			s.pos++
			return s.in[start:s.pos], nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		default:
			return nil, s.unexpected("inside a string (write it as an escape)")
		}
	}
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain moves to the next byte that ends the plain part of a string: a quote, a backslash or a control character.
// Eight bytes at a time: the sum has the high bit of a byte set where that byte is one of the three; above the first
// such byte it may be wrong (borrows), so only the lowest counts.
func (s *scanner) plain() {
	for ; s.pos+8 <= len(s.in); s.pos += 8 {
		x := binary.LittleEndian.Uint64(s.in[s.pos:])
		quote, backslash := x^('"'*ones), x^('\\'*ones)
		stop := ((x-0x20*ones)&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & highs
		if stop != 0 {
			s.pos += bits.TrailingZeros64(stop) / 8
			return
		}
	}
	for ; s.pos < len(s.in); s.pos++ {
		if c := s.in[s.pos]; c == '"' || c == '\\' || c < 0x20 {
			return
		}
	}
}

func (s *scanner) escape() error {
	s.pos++
	if s.pos >= len(s.in) {
		return s.unexpected("inside a string")
	}
	switch s.in[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
		s.pos++
		return s.hex4()
	}
	return s.unexpected("in an escape")
}

func (s *scanner) hex4() error {
	for range 4 {
		if s.pos >= len(s.in) || !isHex(s.in[s.pos]) {
			return s.unexpected("where four hexadecimal digits must be")
		}
		s.pos++
	}
	return nil
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func isDigit(c byte) bool {
	return '0' <= c && c <= '9'
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.pos >= len(s.in) || s.in[s.pos] != word[i] {
			return s.unexpected("where " + word + " must be")
		}
		s.pos++
	}
	return nil
}

func (s *scanner) number() error {
	if s.at('-') {
		s.pos++
	}
	if s.at('0') {
		s.pos++
	} else if err := s.digits("where a value must be"); err != nil {
		return err
	}
	if s.at('.') {
		s.pos++
		if err := s.digits("in a number"); err != nil {
			return err
		}
	}
	if !s.at('e') && !s.at('E') {
		return nil
	}
	s.pos++
	if s.at('+') || s.at('-') {
		s.pos++
	}
	return s.digits("in a number")
}

func (s *scanner) at(c byte) bool {
	return s.pos < len(s.in) && s.in[s.pos] == c
}

// digits passes over one or more digits.
func (s *scanner) digits(where string) error {
	start := s.pos
	for s.pos < len(s.in) && isDigit(s.in[s.pos]) {
		s.pos++
	}
	if s.pos == start {
		return s.unexpected(where)
	}
	return nil
}

func (s *scanner) unexpected(where string) error {
	return syntaxErrorAt(s.in, s.pos, where)
}

// unquote decodes a string token that the scanner has accepted. An unpaired surrogate becomes U+FFFD.
func unquote(token []byte) string {
	inner := token[1 : len(token)-1]
	for _, c := range inner {
		if c == '\\' {
			return decode(token)
		}
	}
	return string(inner)
}

func decode(token []byte) string {
	var text string
	if err := json.Unmarshal(token, &text); err != nil {
		return string(token) // not reached: the scanner accepts no string that encoding/json refuses
	}
	return text
}
