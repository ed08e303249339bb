// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	//go:embed page.html
	pageText string
	//go:embed style.css
	style string
)

// pageHeaders forbid the page to load anything from anywhere; its style is known by its hash.
func pageHeaders() map[string]string {
	sum := sha256.Sum256([]byte(style))
	return map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Referrer-Policy": "no-referrer",
	}
}

// page is what the template shows.
type page struct {
	Title, Version, Summary string
	Style                   template.CSS
	Intro                   [][]span
	Servers                 []server
	Sections                []*section
	Objects                 []model
}

type server struct{ URL, Description string }

// section is a part of the API.
type section struct {
	ID, Name string
	Text     [][]span
	Calls    []*call
}

// call is one operation.
type call struct {
	ID, Method, Path, Summary string
	Open                      bool
	Text                      [][]span
	Parameters                []row
	Body                      *body
	Curl                      string
	Answers                   []answer
	Refusals                  []refusal
}

// row is a parameter or a field.
type row struct {
	Name     string
	In       string // of a parameter: where it is
	Required bool   // must be given
	Optional bool   // may be absent from an answer
	Type     kind
	Text     []span
	Bounds   []span
}

// kind is a type in words, with the object that it is of.
type kind struct {
	Text   string // such as "array of"
	Object string // "": none
	Null   bool   // may be null
}

// body is what a request carries.
type body struct {
	Media    []string
	Required bool
	Text     []span
	Object   []kind // one of these
	Rows     []row
	Examples []example
}

type example struct{ Summary, Text string }

// answer is one that a call is made for.
type answer struct {
	Status  string
	Text    []span
	Media   string
	Object  []kind // one of these
	Headers []row
	Example string
}

// refusal is an answer that is a problem.
type refusal struct {
	Status string
	Text   []span
}

// model is a schema that others refer to.
type model struct {
	Name string
	Text []span
	Rows []row
}

// render makes the page.
func render(root *yaml.Node) ([]byte, error) {
	var d document
	if err := root.Decode(&d); err != nil {
		return nil, err
	}
	p, err := d.page()
	if err != nil {
		return nil, err
	}
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (d *document) page() (*page, error) {
	p := &page{
		Title: d.Info.Title, Version: d.Info.Version, Summary: d.Info.Summary, Intro: paragraphs(d.Info.Description),
		Style: template.CSS(style), //nolint:gosec // the package's own file
	}
	for _, s := range d.Servers {
		p.Servers = append(p.Servers, server{s.URL, s.Description})
	}
	for _, tag := range d.Tags {
		s := &section{ID: strings.ToLower(tag.Name), Name: tag.Name, Text: paragraphs(tag.Description)}
		if err := d.addCalls(s); err != nil {
			return nil, err
		}
		p.Sections = append(p.Sections, s)
	}
	for _, entry := range d.Components.Schemas {
		o := model{Name: entry.Key, Text: spans(entry.Value.Description)}
		rows, err := d.rows(entry.Value)
		if err != nil {
			return nil, err
		}
		if o.Rows = rows; len(rows) > 0 {
			p.Objects = append(p.Objects, o)
		}
	}
	slices.SortFunc(p.Objects, func(a, b model) int { return strings.Compare(a.Name, b.Name) })
	return p, nil
}

// addCalls adds the operations of a tag.
func (d *document) addCalls(s *section) error {
	for _, path := range d.Paths {
		for _, entry := range path.Value {
			if !slices.Contains(entry.Value.Tags, s.Name) {
				continue
			}
			c, err := d.call(strings.ToUpper(entry.Key), path.Key, entry.Value)
			if err != nil {
				return err
			}
			s.Calls = append(s.Calls, c)
		}
	}
	return nil
}
