// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

// Attributes are what a subscription's filter looks at. "" means that the event lacks it.
type Attributes struct {
	Project, Team, Severity string
}

// Attributes takes each attribute from the top level of data, else from that of metadata. Only a string that is not
// empty counts. Where a name occurs twice, the last one counts, as for most JSON parsers that a consumer may use.
func (e Event) Attributes() Attributes {
	found := attributesOf(e.Data)
	if found.Project != "" && found.Team != "" && found.Severity != "" {
		return found
	}
	other := attributesOf(e.Metadata)
	return Attributes{
		Project:  firstOf(found.Project, other.Project),
		Team:     firstOf(found.Team, other.Team),
		Severity: firstOf(found.Severity, other.Severity),
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// attributesOf passes once over an object. A text that is not an object, or not JSON, has no attributes.
func attributesOf(object []byte) Attributes {
	s := scanner{in: object, maxDepth: MaxDepth}
	if s.peek() != '{' {
		return Attributes{}
	}
	s.pos++
	var found Attributes
	for first := true; ; first = false {
		name, more, err := s.key(first)
		if err != nil {
			return Attributes{}
		}
		if !more {
			return found
		}
		value, err := s.value(1)
		if err != nil {
			return Attributes{}
		}
		if into := found.named(name); into != nil {
			*into = text(value)
		}
	}
}

// named returns the attribute that a field name, with its quotes, stands for; nil for any other.
func (a *Attributes) named(name []byte) *string {
	switch string(plainName(name)) {
	case "project":
		return &a.Project
	case "team":
		return &a.Team
	case "severity":
		return &a.Severity
	}
	return nil
}

// plainName strips the quotes of a field name and decodes it where it has escapes.
func plainName(token []byte) []byte {
	inner := token[1 : len(token)-1]
	for _, c := range inner {
		if c == '\\' {
			return []byte(decode(token))
		}
	}
	return inner
}

func text(value []byte) string {
	if value[0] != '"' {
		return ""
	}
	return unquote(value)
}
