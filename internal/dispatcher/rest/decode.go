// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
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

// Unmarshal reads one JSON value, strictly: 400 for what is not JSON in UTF-8, 422 for unknown and repeated fields and
// for wrong types, of which it names every one (up to a bound) with its path. The names of fields are case-sensitive.
// A field that is null is one that was left out.
func Unmarshal(body []byte, into any) *Problem {
	if at := invalidUTF8(body); at >= 0 {
		return New(http.StatusBadRequest, "the body is not UTF-8 at "+position(body, at)+": send JSON in UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return notJSON(body, err)
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
