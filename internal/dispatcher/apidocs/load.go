// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"embed"
	"fmt"
	"io/fs"

	"go.yaml.in/yaml/v3"
)

//go:embed openapi/*.yaml
var files embed.FS

// load puts the files together, in the order of their names, to the document's root, which keeps their order.
func load(version string) (*yaml.Node, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	names, err := fs.Glob(files, "openapi/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var part yaml.Node
		if err := yaml.Unmarshal(text, &part); err != nil {
			return nil, fmt.Errorf("parse %s: %w", name, err)
		}
		if err := merge(root, part.Content[0], ""); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if v := at(root, "info", "version"); v != nil {
		v.SetString(version)
	}
	return root, nil
}

// merge adds a mapping to another: mappings within both become one, lists are joined, and what is else in both is an
// error.
func merge(into, from *yaml.Node, path string) error {
	for i := 0; i+1 < len(from.Content); i += 2 {
		key, value := from.Content[i], from.Content[i+1]
		present := at(into, key.Value)
		switch {
		case present == nil:
			into.Content = append(into.Content, key, value)
		case present.Kind == yaml.MappingNode && value.Kind == yaml.MappingNode:
			present.Style = 0 // {} is added to
			if err := merge(present, value, path+"/"+key.Value); err != nil {
				return err
			}
		case present.Kind == yaml.SequenceNode && value.Kind == yaml.SequenceNode:
			present.Content = append(present.Content, value.Content...)
		default:
			return fmt.Errorf("%s/%s is there already", path, key.Value)
		}
	}
	return nil
}

// at returns what is below a node by its keys, nil for nothing.
func at(node *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		var found *yaml.Node
		for i := 0; node != nil && node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == key {
				found = node.Content[i+1]
			}
		}
		node = found
	}
	return node
}
