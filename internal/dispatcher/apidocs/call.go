// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const problemType = "application/problem+json"

func (d *document) call(method, path string, o *operation) (*call, error) {
	c := &call{
		ID: o.OperationID, Method: method, Path: path, Summary: o.Summary, Text: paragraphs(o.Description),
		Open: o.Security != nil && len(*o.Security) == 0,
	}
	var parameters []*parameter
	for _, p := range o.Parameters {
		if p.Ref != "" {
			found, err := resolve(d.Components.Parameters, p.Ref)
			if err != nil {
				return nil, err
			}
			p = found
		}
		parameters = append(parameters, p)
		c.Parameters = append(c.Parameters, row{
			Name: p.Name, In: p.In, Required: p.Required, Type: d.kind(p.Schema), Text: spans(p.Description),
			Bounds: d.bounds(p.Schema),
		})
	}
	if err := d.setBody(c, o.RequestBody); err != nil {
		return nil, err
	}
	c.Curl = d.curl(c, parameters)
	return c, d.addAnswers(c, o.Responses)
}

func (d *document) setBody(c *call, r *requestBody) error {
	if r == nil {
		return nil
	}
	c.Body = &body{Required: r.Required, Text: spans(r.Description)}
	for _, entry := range r.Content {
		m := entry.Value
		c.Body.Media = append(c.Body.Media, entry.Key)
		if text := exampleOf(&m.Example); text != "" {
			c.Body.Examples = append(c.Body.Examples, example{"", text})
		}
		for _, e := range m.Examples {
			c.Body.Examples = append(c.Body.Examples, example{e.Value.Summary, exampleOf(&e.Value.Value)})
		}
	}
	whole := r.Content[0].Value.Schema
	rows, err := d.rows(whole)
	c.Body.Object, c.Body.Rows = d.kinds(whole), rows
	return err
}

func exampleOf(node *yaml.Node) string {
	if node.IsZero() {
		return ""
	}
	return string(pretty(node))
}

// curl is the call as a command, with every parameter that has an example.
func (d *document) curl(c *call, parameters []*parameter) string {
	target, query := c.Path, url.Values{}
	for _, p := range parameters {
		switch {
		case p.Example.IsZero():
		case p.In == "path":
			target = strings.ReplaceAll(target, "{"+p.Name+"}", p.Example.Value)
		case p.In == "query":
			query.Set(p.Name, p.Example.Value)
		}
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	command := "curl "
	if c.Method != http.MethodGet {
		command += "-X " + c.Method + " "
	}
	lines := []string{command + `"` + d.Servers[0].URL + target + `"`}
	if !c.Open {
		lines = append(lines, `-H "Authorization: Bearer $TOKEN"`)
	}
	if c.Body != nil {
		lines = append(lines, `-H "Content-Type: `+c.Body.Media[0]+`"`)
		if len(c.Body.Examples) > 0 {
			lines = append(lines, "-d '"+strings.NewReplacer("'", `'\''`, "\n", "\n  ").Replace(c.Body.Examples[0].Text)+"'")
		}
	}
	return strings.Join(lines, " \\\n  ")
}

func (d *document) addAnswers(c *call, responses ordered[*response]) error {
	for _, entry := range responses {
		r := entry.Value
		if r.Ref != "" {
			found, err := resolve(d.Components.Responses, r.Ref)
			if err != nil {
				return err
			}
			r = found
		}
		if _, isProblem := r.Content.get(problemType); isProblem {
			c.Refusals = append(c.Refusals, refusal{entry.Key, spans(r.Description)})
			continue
		}
		a, err := d.answer(entry.Key, r)
		if err != nil {
			return err
		}
		c.Answers = append(c.Answers, a)
	}
	return nil
}

func (d *document) answer(status string, r *response) (answer, error) {
	a := answer{Status: status, Text: spans(r.Description)}
	for _, entry := range r.Headers {
		h := entry.Value
		if h.Ref != "" {
			found, err := resolve(d.Components.Headers, h.Ref)
			if err != nil {
				return a, err
			}
			h = found
		}
		a.Headers = append(a.Headers, row{Name: entry.Key, Text: spans(h.Description)})
	}
	for _, entry := range r.Content {
		a.Media, a.Example = entry.Key, exampleOf(&entry.Value.Example)
		a.Object = d.kinds(entry.Value.Schema)
	}
	return a, nil
}

// rows are the fields of an object, or of the objects of an array.
func (d *document) rows(s *schema) ([]row, error) {
	whole, err := d.flat(s)
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, entry := range whole.Properties {
		r := row{
			Name: entry.Key, Type: d.kind(entry.Value), Text: spans(entry.Value.Description), Bounds: d.bounds(entry.Value),
		}
		required := slices.Contains(whole.Required, entry.Key)
		if whole.isWritten() {
			r.Required = required
		} else {
			r.Optional = !required
			r.Type.Null = slices.Contains(entry.Value.Type, "null")
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// flat is a schema without references at its top: all that it is made of in one.
func (d *document) flat(s *schema) (*schema, error) {
	all := s.AllOf
	if s.Ref != "" {
		all = append([]*schema{{Ref: s.Ref}}, all...)
	}
	whole := *s
	whole.Ref, whole.AllOf = "", nil
	for _, part := range all {
		if part.Ref != "" {
			found, err := resolve(d.Components.Schemas, part.Ref)
			if err != nil {
				return nil, err
			}
			part = found
		}
		part, err := d.flat(part)
		if err != nil {
			return nil, err
		}
		whole.Properties = append(slices.Clip(part.Properties), whole.Properties...)
		whole.Required = append(slices.Clip(part.Required), whole.Required...)
		whole.Others = part.Others
	}
	return &whole, nil
}
