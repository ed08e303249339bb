// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is what the page shows of the OpenAPI document.
type document struct {
	Info struct {
		Title, Summary, Description, Version string
	}
	Servers    []struct{ URL, Description string }
	Tags       []struct{ Name, Description string }
	Paths      ordered[ordered[*operation]]
	Components struct {
		Schemas    ordered[*schema]
		Parameters ordered[*parameter]
		Headers    ordered[*header]
		Responses  ordered[*response]
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Tags        []string
	Summary     string
	Description string
	Security    *[]any // empty: none
	Parameters  []*parameter
	RequestBody *requestBody `yaml:"requestBody"`
	Responses   ordered[*response]
}

type parameter struct {
	Ref         string `yaml:"$ref"`
	Name        string
	In          string
	Required    bool
	Description string
	Schema      *schema
	Example     yaml.Node
}

type requestBody struct {
	Required    bool
	Description string
	Content     ordered[*media]
}

type media struct {
	Schema   *schema
	Example  yaml.Node
	Examples ordered[struct {
		Summary string
		Value   yaml.Node
	}]
}

type response struct {
	Ref         string `yaml:"$ref"`
	Description string
	Headers     ordered[*header]
	Content     ordered[*media]
}

type header struct {
	Ref         string `yaml:"$ref"`
	Description string
}

type schema struct {
	Ref         string `yaml:"$ref"`
	Type        types
	Format      string
	Description string
	Const       string
	Enum        []yaml.Node
	Default     yaml.Node
	Minimum     *int
	Maximum     *int
	MinLength   *int `yaml:"minLength"`
	MaxLength   *int `yaml:"maxLength"`
	MinItems    *int `yaml:"minItems"`
	MaxItems    *int `yaml:"maxItems"`
	Items       *schema
	Properties  ordered[*schema]
	Required    []string
	Others      yaml.Node `yaml:"additionalProperties"` // false for what clients write, where nothing else is taken
	AllOf       []*schema `yaml:"allOf"`
	AnyOf       []*schema `yaml:"anyOf"`
	OneOf       []*schema `yaml:"oneOf"`
}

// types of a schema.
type types []string

// UnmarshalYAML takes one type or several.
func (t *types) UnmarshalYAML(node *yaml.Node) error {
	all := []*yaml.Node{node}
	if node.Kind == yaml.SequenceNode {
		all = node.Content
	}
	for _, one := range all {
		*t = append(*t, one.Value)
	}
	return nil
}

// isWritten tells whether clients write it: then everything that it does not know is refused.
func (s *schema) isWritten() bool { return s.Others.Value == "false" }

// ordered is a mapping that keeps its order.
type ordered[T any] []struct {
	Key   string
	Value T
}

// UnmarshalYAML reads a mapping.
func (o *ordered[T]) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: must be a mapping", node.Line)
	}
	*o = make(ordered[T], len(node.Content)/2)
	for i := range *o {
		(*o)[i].Key = node.Content[2*i].Value
		if err := node.Content[2*i+1].Decode(&(*o)[i].Value); err != nil {
			return err
		}
	}
	return nil
}

func (o ordered[T]) get(key string) (value T, found bool) {
	for _, entry := range o {
		if entry.Key == key {
			return entry.Value, true
		}
	}
	return value, false
}

// component is the last part of a reference.
func component(ref string) string {
	return ref[strings.LastIndexByte(ref, '/')+1:]
}

// resolve returns what a reference names.
func resolve[T any](among ordered[T], ref string) (T, error) {
	found, ok := among.get(component(ref))
	if !ok {
		return found, fmt.Errorf("there is no %s", ref)
	}
	return found, nil
}
