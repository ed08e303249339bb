// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"bytes"
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v3"
)

// oneLine is how long an object or a list may be to stand on one line.
const oneLine = 60

// pretty writes a node as JSON for people, in the node's order, which encoding/json would not keep.
func pretty(node *yaml.Node) []byte {
	var b strings.Builder
	writePretty(&b, node, "")
	return []byte(b.String())
}

func writePretty(b *strings.Builder, node *yaml.Node, indent string) {
	if line := compact(node); node.Kind == yaml.ScalarNode || len(line) <= oneLine-len(indent) {
		b.WriteString(line)
		return
	}
	first, last, step := "[", "]", 1
	if node.Kind == yaml.MappingNode {
		first, last, step = "{", "}", 2
	}
	b.WriteString(first)
	for i := 0; i < len(node.Content); i += step {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + indent + "  ")
		if step == 2 {
			b.WriteString(quoted(node.Content[i].Value) + ": ")
		}
		writePretty(b, node.Content[i+step-1], indent+"  ")
	}
	b.WriteString("\n" + indent + last)
}

// compact writes a node as JSON on one line.
func compact(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		var parts []string
		for i := 0; i+1 < len(node.Content); i += 2 {
			parts = append(parts, quoted(node.Content[i].Value)+": "+compact(node.Content[i+1]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case yaml.SequenceNode:
		var parts []string
		for _, item := range node.Content {
			parts = append(parts, compact(item))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return scalar(node)
	}
}

func scalar(node *yaml.Node) string {
	switch node.ShortTag() {
	case "!!null":
		return "null"
	case "!!bool", "!!int", "!!float":
		return node.Value
	default:
		return quoted(node.Value)
	}
}

// quoted is a string in JSON, with <, > and & as they are.
func quoted(text string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		return `""` // not reached: a string has JSON
	}
	return strings.TrimSuffix(b.String(), "\n")
}
