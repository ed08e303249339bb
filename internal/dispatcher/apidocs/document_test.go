// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pb33f/libopenapi/datamodel"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

type object = map[string]any

// whole is the document as a client reads it.
func whole(t *testing.T) object {
	t.Helper()
	text, err := Document("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("it is not JSON: %v", err)
	}
	return value.(object)
}

func TestTheDocumentIsOpenAPI(t *testing.T) {
	text, err := jsonschema.UnmarshalJSON(strings.NewReader(datamodel.OpenAPI31SchemaData))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi", text); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("openapi")
	if err != nil {
		t.Fatal(err)
	}
	document := whole(t)
	if err := schema.Validate(document); err != nil {
		t.Error(err)
	}
	if got := document["info"].(object)["version"]; got != "1.2.3" {
		t.Errorf("version %v", got)
	}
	delete(document, "info")
	if schema.Validate(document) == nil {
		t.Error("a document without info passes")
	}
}

// No name is there twice, which would hide one of the two.
func TestTheFilesHaveNoNameTwice(t *testing.T) {
	names, err := fs.Glob(files, "openapi/*.yaml")
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(text, &object{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsInTwoFilesIsRefused(t *testing.T) {
	const first = "tags: [a]\npaths:\n  /x: {get: {summary: s}}\n"
	for name, c := range map[string]struct{ second, want string }{
		"another path":   {"tags: [b]\npaths:\n  /y: {}\n", ""},
		"another method": {"paths: {/x: {put: {}}}\n", ""},
		"the same field": {"paths: {/x: {get: {summary: t}}}\n", "/paths/x/get/summary is there already"},
	} {
		t.Run(name, func(t *testing.T) {
			var into, from yaml.Node
			if err := yaml.Unmarshal([]byte(first), &into); err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal([]byte(c.second), &from); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := merge(into.Content[0], from.Content[0], ""); err != nil {
				got = strings.ReplaceAll(err.Error(), "//", "/")
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// compiler knows the document, whose parts are schemas by their JSON pointer.
func compiler(t *testing.T) (*jsonschema.Compiler, object) {
	t.Helper()
	document := whole(t)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return c, document
}

// pointer is a JSON pointer.
func pointer(keys ...string) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key))
	}
	return b.String()
}

// walk visits every value below one.
func walk(path []string, value any, visit func(path []string, value object)) {
	switch value := value.(type) {
	case object:
		visit(path, value)
		for key, inner := range value {
			walk(append(slices.Clip(path), key), inner, visit)
		}
	case []any:
		for i, inner := range value {
			walk(append(slices.Clip(path), fmt.Sprint(i)), inner, visit)
		}
	}
}

func TestSchemasCompileAndTheirExamplesFit(t *testing.T) {
	c, document := compiler(t)
	seen := 0
	fits := func(path []string, examples ...any) {
		schema, err := c.Compile("openapi.json#" + pointer(path...))
		if err != nil {
			t.Errorf("%v: %v", path, err)
			return
		}
		for _, e := range examples {
			seen++
			if err := schema.Validate(e); err != nil {
				t.Errorf("an example of %v: %v", path, err)
			}
		}
	}
	walk(nil, document["components"].(object)["schemas"], func(path []string, value object) {
		if len(path) == 1 || (len(path) > 2 && path[len(path)-2] == "properties") {
			examples, _ := value["examples"].([]any)
			fits(append([]string{"components", "schemas"}, path...), examples...)
		}
	})
	walk(nil, document, func(path []string, value object) {
		if slices.Contains(path, "schema") || slices.Contains(path, "schemas") || value["schema"] == nil {
			return
		}
		var examples []any
		if e, has := value["example"]; has {
			examples = append(examples, e)
		}
		several, _ := value["examples"].(object)
		for _, e := range several {
			examples = append(examples, e.(object)["value"])
		}
		fits(append(slices.Clip(path), "schema"), examples...)
	})
	if seen < 50 {
		t.Errorf("only %d examples were looked at", seen)
	}
}

func TestEveryReferenceLeadsSomewhereAndNothingIsUnused(t *testing.T) {
	document := whole(t)
	used := map[string]bool{}
	walk(nil, document, func(_ []string, value object) {
		if ref, is := value["$ref"].(string); is {
			used[ref] = true
		}
	})
	there := map[string]bool{}
	for kind, components := range document["components"].(object) {
		if kind == "securitySchemes" {
			continue
		}
		for name := range components.(object) {
			there["#/components/"+kind+"/"+name] = true
		}
	}
	if diff := cmp.Diff(there, used); diff != "" {
		t.Errorf("what is there and what is used (-there +used):\n%s", diff)
	}
}

// operations visits every operation.
func operations(document object, visit func(name, path string, operation object)) {
	for path, item := range document["paths"].(object) {
		for method, operation := range item.(object) {
			visit(strings.ToUpper(method)+" "+path, path, operation.(object))
		}
	}
}

var inBraces = regexp.MustCompile(`\{(\w+)\}`)

func TestEveryOperationIsWholeAndSaysWhoMay(t *testing.T) {
	document := whole(t)
	parameters := document["components"].(object)["parameters"].(object)
	ids := map[string]bool{}
	operations(document, func(name, path string, o object) {
		id, _ := o["operationId"].(string)
		if id == "" || ids[id] || o["summary"] == nil || o["description"] == nil || len(o["tags"].([]any)) != 1 {
			t.Errorf("%s: operationId %q, summary, description or tag", name, id)
		}
		ids[id] = true
		var want, got []string
		for _, m := range inBraces.FindAllStringSubmatch(path, -1) {
			want = append(want, m[1])
		}
		given, _ := o["parameters"].([]any)
		for _, p := range given {
			p := p.(object)
			if ref, is := p["$ref"].(string); is {
				p = parameters[component(ref)].(object)
			}
			if p["in"] == "path" {
				got = append(got, p["name"].(string))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: parameters in the path (-path +documented):\n%s", name, diff)
		}
		answers := slices.Sorted(maps.Keys(o["responses"].(object)))
		_, isOpen := o["security"]
		if isOpen == slices.Contains(answers, "401") {
			t.Errorf("%s: open: %t, answers %v", name, isOpen, answers)
		}
	})
	if len(ids) < 20 {
		t.Errorf("only %d operations", len(ids))
	}
}
