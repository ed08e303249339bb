// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Params reads the parameters of a request's query. What is wrong is collected, so read all, then ask for the Problem.
type Params struct {
	given    url.Values
	known    []string
	mistakes []FieldError
	bad      bool // some could not be read (400), rather than are not wanted (422)
}

// maxValue bounds a parameter's value, in bytes: names, ids and cursors are all far shorter.
const maxValue = 2048

// Query returns the reader of a request's parameters.
func Query(r *http.Request) *Params {
	if r.URL.RawQuery == "" {
		return &Params{} // as most calls have it, publishing above all
	}
	given, err := url.ParseQuery(r.URL.RawQuery)
	p := &Params{given: given}
	if err != nil {
		wrong := Malformed(r.URL.RawQuery)
		p.malformed(wrong.Field, wrong.Message)
	}
	return p
}

// Malformed says what keeps url.ParseQuery from reading a query or a form, by the name of the parameter if that can be
// read.
func Malformed(query string) FieldError {
	const right = " malformed: write it as name=value, with & between and special characters percent-encoded"
	for pair := range strings.SplitSeq(query, "&") {
		raw, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(raw)
		_, errOfValue := url.QueryUnescape(value)
		if err == nil && (errOfValue != nil || strings.Contains(value, ";")) {
			return FieldError{Shown(name), "is" + right}
		}
		if err != nil || strings.Contains(pair, ";") {
			break
		}
	}
	return FieldError{"", "the query or form is" + right}
}

func (p *Params) malformed(name, message string) {
	p.bad = true
	p.mistakes = append(p.mistakes, FieldError{name, message})
}

// value returns a parameter that is given, "" for one that is not or is wrong: never an empty one.
func (p *Params) value(name string) string {
	p.known = append(p.known, name)
	values, given := p.given[name]
	switch {
	case !given:
	case len(values) > 1:
		p.mistakes = append(p.mistakes, FieldError{name, "is there more than once: give it once"})
	case values[0] == "":
		p.malformed(name, "is empty: give it a value or leave it out")
	case len(values[0]) > maxValue:
		p.malformed(name, fmt.Sprintf("is longer than %d bytes, which no value of it is", maxValue))
	case !utf8.ValidString(values[0]):
		p.malformed(name, "is not UTF-8")
	default:
		return values[0]
	}
	return ""
}

// Wrong adds what is wrong with the value of a parameter that was read, which makes the problem a 400.
func (p *Params) Wrong(name, message string) { p.malformed(name, message) }

// Given tells whether a parameter is there.
func (p *Params) Given(name string) bool { return len(p.given[name]) > 0 }

// String returns a parameter, "" without one.
func (p *Params) String(name string) string { return p.value(name) }

// namespaceName is what Kubernetes takes for the name of a namespace: a DNS label of RFC 1123.
var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Namespace returns the parameter namespace.
func (p *Params) Namespace(otherwise string) string {
	namespace := p.value("namespace")
	if namespace == "" {
		return otherwise
	}
	if !namespaceName.MatchString(namespace) {
		p.malformed("namespace", "must be the name of a namespace: lower-case letters, digits and hyphens, at most 63")
	}
	return namespace
}

// Int returns a whole number within bounds.
func (p *Params) Int(name string, lowest, highest, otherwise int) int {
	text := p.value(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < lowest || n > highest {
		p.malformed(name, fmt.Sprintf("must be a whole number from %d to %d", lowest, highest))
		return otherwise
	}
	return n
}

// Bool returns true or false.
func (p *Params) Bool(name string, otherwise bool) bool {
	text := p.value(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		p.malformed(name, "must be true or false")
		return otherwise
	}
	return value
}

// Time returns a point in time, the zero one without the parameter.
func (p *Params) Time(name string) time.Time {
	text := p.value(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		p.malformed(name, "must be a time in RFC 3339, such as 2026-01-02T15:04:05Z; a + in it is written %2B")
	}
	return at
}

// Enum returns one of the values, "" without the parameter.
func (p *Params) Enum(name string, values ...string) string {
	text := p.value(name)
	if text == "" || slices.Contains(values, text) {
		return text
	}
	p.malformed(name, "must be one of "+strings.Join(values, ", "))
	return ""
}

// Cursor reads what NextPage put into a cursor, and reports whether there is one.
func (p *Params) Cursor(name string, into any) bool {
	text := p.value(name)
	if text == "" {
		return false
	}
	if decodeCursor(text, into) != nil {
		p.malformed(name, "is none that this list gave out: take it from a Link header, or leave it out to start anew")
		return false
	}
	return true
}

// Problem returns what is wrong with the parameters, those included that nobody asked for; nil where nothing is.
func (p *Params) Problem() *Problem {
	var unknown []string
	for name := range p.given {
		if !slices.Contains(p.known, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		message := "is not a parameter of this call; it takes none"
		if len(p.known) > 0 {
			message = "is not a parameter of this call, which takes " + strings.Join(p.known, ", ")
		}
		p.mistakes = append(p.mistakes, FieldError{Shown(name), message})
	}
	p.mistakes = p.mistakes[:min(len(p.mistakes), maxMistakes)]
	problem := Invalid(p.mistakes)
	if p.bad {
		problem.Status, problem.Title = http.StatusBadRequest, http.StatusText(http.StatusBadRequest)
	}
	return problem
}
