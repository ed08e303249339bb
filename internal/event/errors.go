// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// SyntaxError says that a text is not JSON, and where.
type SyntaxError struct {
	Offset       int // bytes before the mistake
	Line, Column int // of the mistake, from 1; the column counts bytes
	Message      string
}

// Error is one sentence without the offending text's surroundings, which may be confidential.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON: %s at line %d, column %d", e.Message, e.Line, e.Column)
}

func syntaxErrorAt(in []byte, pos int, where string) *SyntaxError {
	if pos >= len(in) {
		return newSyntaxError(in, len(in), "the text ends "+where)
	}
	r, _ := utf8.DecodeRune(in[pos:])
	return newSyntaxError(in, pos, fmt.Sprintf("unexpected %q %s", r, where))
}

func newSyntaxError(in []byte, pos int, message string) *SyntaxError {
	before := in[:pos]
	return &SyntaxError{
		Offset:  pos,
		Line:    bytes.Count(before, []byte{'\n'}) + 1,
		Column:  pos - bytes.LastIndexByte(before, '\n'),
		Message: message,
	}
}

// checkUTF8 refuses text that is not UTF-8, as JSON between systems must be (RFC 8259, 8.1).
func checkUTF8(in []byte) error {
	if utf8.Valid(in) {
		return nil
	}
	pos := 0
	for {
		r, size := utf8.DecodeRune(in[pos:])
		if r == utf8.RuneError && size <= 1 {
			return newSyntaxError(in, pos, "invalid UTF-8")
		}
		pos += size
	}
}

// FieldError is one thing that is wrong with one field. Field "" is the event as a whole.
type FieldError struct {
	Field   string
	Message string
}

// InvalidError says that an event is JSON but breaks the schema; Fields has at least one entry, and few.
type InvalidError struct {
	Fields []FieldError
}

// Error joins what is wrong with the first fields.
func (e *InvalidError) Error() string {
	const most = 4
	var parts []string
	for _, f := range e.Fields[:min(len(e.Fields), most)] {
		parts = append(parts, strings.TrimPrefix(f.Field+" "+f.Message, " "))
	}
	if len(e.Fields) > most {
		parts = append(parts, "and more")
	}
	return strings.Join(parts, "; ")
}

func invalid(field, message string) *InvalidError {
	return &InvalidError{Fields: []FieldError{{Field: field, Message: message}}}
}
