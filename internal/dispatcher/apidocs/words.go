// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"strconv"
	"strings"
)

// kind is a schema's type in words.
func (d *document) kind(s *schema) kind {
	switch {
	case s == nil:
		return kind{}
	case s.Ref != "":
		return d.named(s.Ref)
	case len(s.OneOf)+len(s.AnyOf) > 0:
		return d.kind(append(s.OneOf, s.AnyOf...)[0])
	case len(s.AllOf) > 0:
		return d.kind(s.AllOf[0])
	case s.Items != nil:
		item := d.kind(s.Items)
		if item.Object == "" {
			item.Text += "s"
		}
		return kind{Text: "array of " + item.Text, Object: item.Object}
	case s.Format == "date-time":
		return kind{Text: "time"}
	case s.Format != "":
		return kind{Text: s.Type.word() + " (" + s.Format + ")"}
	default:
		return kind{Text: s.Type.word()}
	}
}

// word is the type that is not null.
func (t types) word() string {
	for _, one := range t {
		if one != "null" {
			return one
		}
	}
	return ""
}

// kinds are those of which a whole body is one.
func (d *document) kinds(s *schema) (all []kind) {
	if len(s.OneOf) == 0 {
		return []kind{d.kind(s)}
	}
	for _, one := range s.OneOf {
		all = append(all, d.kind(one))
	}
	return all
}

// named is the kind of a component: a link, where it is an object of its own.
func (d *document) named(ref string) kind {
	s, found := d.Components.Schemas.get(component(ref))
	if found && len(s.Properties)+len(s.AllOf) == 0 {
		return d.kind(s)
	}
	return kind{Object: component(ref)}
}

// bounds are what a value must keep to, in words.
func (d *document) bounds(s *schema) []span {
	if s == nil {
		return nil
	}
	if s.Ref != "" {
		if found, is := d.Components.Schemas.get(component(s.Ref)); is && len(found.Properties) == 0 {
			s = found
		}
	}
	var words []string
	add := func(text, unit string) {
		if text != "" {
			words = append(words, strings.TrimSpace(text+" "+unit))
		}
	}
	add(between(s.MinLength, s.MaxLength), "characters")
	add(between(s.Minimum, s.Maximum), "")
	add(between(s.MinItems, s.MaxItems), "entries")
	var values []string
	for _, value := range s.Enum {
		values = append(values, "`"+value.Value+"`")
	}
	add(strings.Join(values, ", "), "")
	if s.Const != "" {
		add("`"+s.Const+"`", "")
	}
	if !s.Default.IsZero() {
		add("default `"+s.Default.Value+"`", "")
	}
	return spans(strings.Join(words, " · "))
}

func between(lowest, highest *int) string {
	switch {
	case lowest != nil && highest != nil:
		return number(*lowest) + " to " + number(*highest)
	case highest != nil:
		return "at most " + number(*highest)
	case lowest != nil && *lowest > 0: // nobody expects a negative count
		return "at least " + number(*lowest)
	default:
		return ""
	}
}

// number writes thousands apart.
func number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
