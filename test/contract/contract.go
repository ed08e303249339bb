// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package contract holds what passes between a client and a dispatcher to the OpenAPI document, for tests: an answer
// must be a documented one, and what was taken must be what the document says is taken.
//
// It is stricter than a client may be: a field of an answer that the document does not name is a mistake.
package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"nexus.io/webhooks/internal/dispatcher/apidocs"
)

// Object is a JSON object.
type Object = map[string]any

// Contract is the document, ready to be compared with.
type Contract struct {
	// Document must not be changed.
	Document Object

	mu       sync.Mutex // of what is below
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

// Load reads the document of this program.
func Load() (*Contract, error) {
	text, err := apidocs.Document("test")
	if err != nil {
		return nil, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	document, _ := value.(Object)
	c := &Contract{Document: document, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	c.compiler.AssertFormat()
	c.seal()
	return c, c.compiler.AddResource("openapi.json", document)
}

// seal makes every field that is not documented a mistake.
func (c *Contract) seal() {
	for _, schema := range c.at("components", "schemas") {
		schema, _ := schema.(Object)
		_, has := schema["properties"]
		if _, says := schema["additionalProperties"]; has && !says {
			schema["additionalProperties"] = false
		}
	}
}

// at returns the object at a path.
func (c *Contract) at(keys ...string) Object {
	found := c.Document
	for _, key := range keys {
		found, _ = found[key].(Object)
	}
	return found
}

// Operation is an entry of the document.
type Operation struct {
	Method, Path string
	Object
}

// Operations lists all, by path and method.
func (c *Contract) Operations() (all []Operation) {
	for path := range c.at("paths") {
		for method, o := range c.at("paths", path) {
			o, _ := o.(Object)
			all = append(all, Operation{strings.ToUpper(method), path, o})
		}
	}
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	return all
}

// Resolve follows an object's reference, if it is one.
func (c *Contract) Resolve(o Object) Object {
	ref, is := o["$ref"].(string)
	if !is {
		return o
	}
	return c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// Parameters returns an operation's parameters.
func (c *Contract) Parameters(o Operation) (all []Object) {
	given, _ := o.Object["parameters"].([]any)
	for _, p := range given {
		p, _ := p.(Object)
		all = append(all, c.Resolve(p))
	}
	return all
}

// find returns the operation of a request, and the path that it belongs to, "" for none.
func (c *Contract) find(method, path string) (o Object, at string) {
	paths := c.at("paths")
	if _, literal := paths[path]; literal {
		at = path
	} else {
		for pattern := range paths {
			if fits(pattern, path) {
				at = pattern
			}
		}
	}
	o, _ = c.at("paths", at)[strings.ToLower(method)].(Object)
	return o, at
}

func fits(pattern, path string) bool {
	a, b := strings.Split(pattern, "/"), strings.Split(path, "/")
	return len(a) == len(b) && slices.EqualFunc(a, b, func(p, q string) bool {
		return p == q || (strings.HasPrefix(p, "{") && q != "")
	})
}

// Check compares an exchange with the document.
func (c *Contract) Check(r *http.Request, sent []byte, status int, header http.Header, answer []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, at := c.find(r.Method, r.URL.Path)
	if o == nil {
		if status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
			return fmt.Errorf("%s %s is not documented, and answered %d", r.Method, r.URL.Path, status)
		}
		return c.fits(answer, "components", "schemas", "Problem")
	}
	operation := []string{"paths", at, strings.ToLower(r.Method)}
	err := c.checkAnswer(operation, status, header, answer)
	if status < http.StatusMultipleChoices && len(sent) > 0 {
		err = errors.Join(err, c.checkBody(operation, "request", r.Header, sent, "requestBody"))
	}
	if err != nil {
		return fmt.Errorf("%s %s, which answered %d %s: %w", r.Method, at, status, answer, err)
	}
	return nil
}

func (c *Contract) checkAnswer(operation []string, status int, header http.Header, answer []byte) error {
	path := append(slices.Clip(operation), "responses", fmt.Sprint(status))
	response := c.at(path...)
	if response == nil {
		return errors.New("the status is not documented")
	}
	if ref, is := response["$ref"].(string); is {
		path = strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		response = c.at(path...)
	}
	if headers, _ := response["headers"].(Object); headers["Retry-After"] != nil && header.Get("Retry-After") == "" {
		return errors.New("there is no Retry-After")
	}
	return c.checkBody(nil, "answer", header, answer, path...)
}

// checkBody compares a body with the content that is documented at the path below base.
func (c *Contract) checkBody(base []string, what string, header http.Header, body []byte, path ...string) error {
	path = append(slices.Clip(base), path...)
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("the %s's Content-Type: %w", what, err)
	}
	path = append(path, "content", media)
	if c.at(path...) == nil {
		return fmt.Errorf("the %s is %s, which is not documented", what, media)
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	if err := c.fits(body, append(path, "schema")...); err != nil {
		return fmt.Errorf("the %s is not as documented: %w", what, err)
	}
	return nil
}

// fits compares a text with the schema at a path.
func (c *Contract) fits(text []byte, path ...string) error {
	at := ""
	for _, key := range path {
		at += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
	}
	schema := c.schemas[at]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile("openapi.json#" + at); err != nil {
			return err
		}
		c.schemas[at] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// JSON is a value as text.
func JSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // it came from JSON
	}
	return string(text)
}
