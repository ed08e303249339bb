// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxMistakes  = 20 // that are listed
	maxNameShown = 100
)

// check compares a JSON value with a type and returns what does not fit.
func check(body []byte, t reflect.Type) []FieldError {
	c := &checker{decoder: json.NewDecoder(bytes.NewReader(body))}
	c.decoder.UseNumber()
	c.value("", t)
	return c.mistakes
}

// checker walks a value that is known to be JSON, so its decoder returns no errors.
type checker struct {
	decoder  *json.Decoder
	mistakes []FieldError
}

func (c *checker) mistake(field, message string) {
	if len(c.mistakes) < maxMistakes {
		c.mistakes = append(c.mistakes, FieldError{field, message})
	}
}

func (c *checker) token() json.Token {
	token, err := c.decoder.Token()
	if err != nil {
		return nil // not reached, see checker
	}
	return token
}

func (c *checker) raw() json.RawMessage {
	var raw json.RawMessage
	if err := c.decoder.Decode(&raw); err != nil {
		return nil // not reached, see checker
	}
	return raw
}

var (
	unmarshalers = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}
	timeType     = reflect.TypeFor[time.Time]()
)

func readsItself(t reflect.Type) bool {
	return t.Kind() == reflect.Interface || slices.ContainsFunc(unmarshalers, reflect.PointerTo(t).Implements)
}

func (c *checker) value(path string, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if readsItself(t) {
		if json.Unmarshal(c.raw(), reflect.New(t).Interface()) != nil {
			c.mistake(path, "must be "+describe(t))
		}
		return
	}
	start := c.token()
	switch {
	case start == nil:
		if path == "" || strings.HasSuffix(path, "]") {
			c.mistake(path, "must be "+describe(t)+", not null")
		}
	case start == json.Delim('{'):
		c.object(path, t)
	case start == json.Delim('['):
		c.array(path, t)
	default:
		c.scalar(path, t, start)
	}
}

func (c *checker) object(path string, t reflect.Type) {
	var fields map[string]reflect.Type
	switch t.Kind() {
	case reflect.Struct:
		fields = fieldsOf(t)
	case reflect.Map:
	default:
		c.wrong(path, t, "an object")
	}
	seen := map[string]bool{}
	for c.decoder.More() {
		name, _ := c.token().(string)
		inner, known := fields[name]
		field := join(path, name)
		switch {
		case seen[name]:
			c.mistake(field, "is there twice: give it once")
			c.raw()
		case t.Kind() == reflect.Map:
			c.value(field, t.Elem())
		case known:
			c.value(field, inner)
		default:
			if fields != nil {
				c.mistake(field, unknown(fields))
			}
			c.raw()
		}
		seen[name] = true
	}
	c.token()
}

func unknown(known map[string]reflect.Type) string {
	if len(known) == 0 {
		return "is not known; this call takes no body"
	}
	return "is not known; the fields here are " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}

// join makes the path of a field.
func join(path, name string) string {
	if path == "" {
		return Shown(name)
	}
	return path + "." + Shown(name)
}

// Shown is a name that a client gave as an answer can show it: not empty, not longer than 100 bytes, and UTF-8.
func Shown(name string) string {
	if name == "" {
		return `""`
	}
	if len(name) > maxNameShown {
		return strings.ToValidUTF8(name[:maxNameShown], "") + "..."
	}
	return strings.ToValidUTF8(name, "?")
}

func (c *checker) array(path string, t reflect.Type) {
	fits := t.Kind() == reflect.Slice
	if !fits {
		c.wrong(path, t, "an array")
	}
	for i := 0; c.decoder.More(); i++ {
		if fits {
			c.value(fmt.Sprintf("%s[%d]", path, i), t.Elem())
		} else {
			c.raw()
		}
	}
	c.token()
}

func (c *checker) scalar(path string, t reflect.Type, token json.Token) {
	switch token := token.(type) {
	case string:
		if t.Kind() != reflect.String {
			c.wrong(path, t, "a string")
		}
	case bool:
		if t.Kind() != reflect.Bool {
			c.wrong(path, t, strconv.FormatBool(token))
		}
	case json.Number:
		if !fitsNumber(t, string(token)) {
			c.wrong(path, t, fmt.Sprintf("%.40s", string(token)))
		}
	}
}

func (c *checker) wrong(path string, t reflect.Type, given string) {
	c.mistake(path, "must be "+describe(t)+", not "+given)
}

func fitsNumber(t reflect.Type, number string) bool {
	var err error
	switch kind := t.Kind(); {
	case kind >= reflect.Int && kind <= reflect.Int64:
		_, err = strconv.ParseInt(number, 10, t.Bits())
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		_, err = strconv.ParseUint(number, 10, t.Bits())
	case kind == reflect.Float32 || kind == reflect.Float64:
		_, err = strconv.ParseFloat(number, t.Bits())
	default:
		return false
	}
	return err == nil
}

func describe(t reflect.Type) string {
	switch kind := t.Kind(); {
	case t == timeType:
		return "a time in RFC 3339, such as 2026-01-02T15:04:05Z"
	case kind == reflect.String:
		return "a string"
	case kind == reflect.Bool:
		return "true or false"
	case kind >= reflect.Int && kind <= reflect.Int64:
		return fmt.Sprintf("a whole number of at most %d bits", t.Bits())
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		return fmt.Sprintf("a whole number from 0 of at most %d bits", t.Bits())
	case kind == reflect.Float32 || kind == reflect.Float64:
		return "a number"
	case kind == reflect.Slice:
		return "an array"
	case readsItself(t):
		return "of another form"
	default:
		return "an object"
	}
}

// fieldsOf returns the types of a struct's fields by their names in JSON.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			maps.Copy(fields, fieldsOf(f.Type))
		case f.IsExported() && name != "-" && name != "":
			fields[name] = f.Type
		}
	}
	return fields
}
