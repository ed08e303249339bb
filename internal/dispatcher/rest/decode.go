// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Decode reads a body of at most limit bytes into what into points to, as Read and Unmarshal do.
func Decode(w http.ResponseWriter, r *http.Request, limit int64, into any) *Problem {
	body, p := Read(w, r, limit)
	if p != nil {
		return p
	}
	return Unmarshal(body, into)
}

// Unmarshal reads one JSON value, strictly: 400 for what is not JSON in UTF-8, half a surrogate pair included, 422 for
// unknown and repeated fields and for wrong types, of which it names every one (up to a bound) with its path. The names
// of fields are case-sensitive. A field that is null is one that was left out.
func Unmarshal(body []byte, into any) *Problem {
	if at := invalidUTF8(body); at >= 0 {
		return New(http.StatusBadRequest, "the body is not UTF-8 at "+position(body, at)+": send JSON in UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return notJSON(body, err)
	}
	if at := halfSurrogate(body); at >= 0 {
		return New(http.StatusBadRequest, "the body has one half of a surrogate pair at "+position(body, at)+
			", which is no character: write both halves, or the character itself")
	}
	if p := Invalid(check(body, reflect.TypeOf(into))); p != nil {
		return p
	}
	if err := json.Unmarshal(body, into); err != nil {
		return New(http.StatusUnprocessableEntity, "the body does not have the form that this call takes: "+err.Error())
	}
	return nil
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return -1
}

// halfSurrogate finds an escape such as \ud83d without its other half in JSON, -1 for none. The decoder would put
// U+FFFD in its place: what is then stored or signed is not what was sent.
func halfSurrogate(text []byte) int {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		first := escaped(text[i:])
		switch {
		case !utf16.IsSurrogate(first):
			i++
		case utf16.DecodeRune(first, escaped(text[i+6:])) == utf8.RuneError:
			return i
		default:
			i += 11
		}
	}
	return -1
}

// escaped is what an escape such as \u00fc at the start of a text stands for, 0 for anything else.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0 // not reached in JSON
	}
	return rune(n)
}

func notJSON(body []byte, err error) *Problem {
	var syntax *json.SyntaxError
	switch {
	case len(body) == 0:
		return New(http.StatusBadRequest, "there is no body: send JSON")
	case errors.As(err, &syntax):
		return New(http.StatusBadRequest, fmt.Sprintf("the body is not JSON: %s at %s",
			syntax, position(body, int(syntax.Offset)-1)))
	default:
		return New(http.StatusBadRequest, "the body is not JSON: "+err.Error())
	}
}

func position(text []byte, at int) string {
	line, column := 1, 1
	for _, c := range text[:max(0, min(at, len(text)))] {
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
	}
	return fmt.Sprintf("line %d, column %d", line, column)
}
