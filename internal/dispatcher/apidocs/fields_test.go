// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"nexus.io/webhooks/internal/dispatcher/deliveries"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/dispatcher/subscriptions"
	"nexus.io/webhooks/internal/event"
)

// shape is what decides which values a schema takes.
func shape(t *testing.T, schema object, of object) object {
	t.Helper()
	if ref, is := schema["$ref"].(string); is {
		return shape(t, of[component(ref)].(object), of)
	}
	if one, is := schema["oneOf"].([]any); is {
		return shape(t, one[0].(object), of)
	}
	if all, is := schema["allOf"].([]any); is {
		return shape(t, all[0].(object), of)
	}
	return schema
}

// fieldsOf returns the documented fields of a schema with their types, nested ones by their paths.
func fieldsOf(t *testing.T, schema object, of object, at string, into map[string]string) {
	t.Helper()
	schema = shape(t, schema, of)
	if items, is := schema["items"].(object); is {
		fieldsOf(t, items, of, at+"[]", into)
	}
	properties, _ := schema["properties"].(object)
	for name, property := range properties {
		inner := shape(t, property.(object), of)
		kind, several := inner["type"].([]any)
		if !several {
			kind = []any{inner["type"]}
		}
		path := strings.TrimPrefix(at+"."+name, ".")
		into[path] = kind[0].(string)
		fieldsOf(t, inner, of, path, into)
	}
}

// What subscriptions take is what their decoder takes, by name and type.
func TestFieldsOfSubscriptionsAreThoseOfTheDecoder(t *testing.T) {
	schemas := whole(t)["components"].(object)["schemas"].(object)
	documented, decoded := map[string]string{}, map[string]string{}
	fieldsOf(t, schemas["SubscriptionFields"].(object), schemas, "", documented)
	decodedFields(reflect.TypeFor[subscriptions.Fields](), "", decoded)
	if diff := cmp.Diff(decoded, documented); diff != "" {
		t.Errorf("(-decoder +document):\n%s", diff)
	}
}

// What an answer shows is what its type has, and what it may lack is what the type leaves out.
func TestFieldsThatAreShownAreThoseOfTheTypes(t *testing.T) {
	for name, shown := range map[string]reflect.Type{
		"Subscription":    reflect.TypeFor[subscriptions.Subscription](),
		"Delivery":        reflect.TypeFor[deliveries.Delivery](),
		"Attempt":         reflect.TypeFor[deliveries.Attempt](),
		"PendingDelivery": reflect.TypeFor[deliveries.Pending](),
		"Problem":         reflect.TypeFor[rest.Problem](),
		"FieldError":      reflect.TypeFor[rest.FieldError](),
	} {
		t.Run(name, func(t *testing.T) {
			schema := whole(t)["components"].(object)["schemas"].(object)[name].(object)
			want, got := map[string]bool{}, map[string]bool{} // whether it is always there
			for f := range shown.Fields() {
				if field, options, _ := strings.Cut(f.Tag.Get("json"), ","); field != "" {
					want[field] = options != "omitempty"
				}
			}
			for field := range schema["properties"].(object) {
				got[field] = slices.Contains(schema["required"].([]any), any(field))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-type +document):\n%s", diff)
			}
		})
	}
}

// The fields of an event are those that a delivery has, all of which a publisher may give.
func TestFieldsOfEventsAreThoseOfTheParser(t *testing.T) {
	var sent object
	e := event.Event{Data: json.RawMessage("{}"), Metadata: json.RawMessage("{}")}
	if err := json.Unmarshal(e.AppendBody(nil), &sent); err != nil {
		t.Fatal(err)
	}
	properties := whole(t)["components"].(object)["schemas"].(object)["Event"].(object)["properties"].(object)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(sent)), slices.Sorted(maps.Keys(properties))); diff != "" {
		t.Errorf("(-event +document):\n%s", diff)
	}
}

// decodedFields returns the fields of a type with their types in JSON, nested ones by their paths.
func decodedFields(of reflect.Type, at string, into map[string]string) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	switch of.Kind() {
	case reflect.Slice:
		decodedFields(of.Elem(), at+"[]", into)
	case reflect.Struct:
		for f := range of.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			path := strings.TrimPrefix(at+"."+name, ".")
			into[path] = typeInJSON(f.Type)
			decodedFields(f.Type, path, into)
		}
	default:
	}
}

func typeInJSON(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.Int32:
		return "integer"
	case reflect.Bool:
		return "boolean"
	default:
		return t.Kind().String()
	}
}

const crdFile = "../../../config/crd/bases/webhooks.nexus.io_webhooksubscriptions.yaml"

// specSchema is the schema of a subscription's spec.
func specSchema(t *testing.T) object {
	t.Helper()
	text, err := os.ReadFile(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPI object `yaml:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil || len(crd.Spec.Versions) != 1 {
		t.Fatal(len(crd.Spec.Versions), err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPI["properties"].(object)["spec"].(object)
}

// renamed are the fields that the resource has elsewhere.
var renamed = map[string]string{
	"name": "displayName", "rate_limit": "rateLimitPerMinute", "project_filter": "filter.project",
	"team_filter": "filter.team", "severity_filter": "filter.severities",
}

// inSpec returns the schema of the field within the spec's.
func inSpec(spec object, path string) object {
	first, _, _ := strings.Cut(path, "[")
	if other, is := renamed[first]; is {
		path = other + path[len(first):]
	}
	found := spec
	for name := range strings.SplitSeq(path, ".") {
		name, isArray := strings.CutSuffix(name, "[]")
		words := strings.Split(name, "_")
		for i, word := range words[1:] {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
		properties, _ := found["properties"].(object)
		found, _ = properties[strings.Join(words, "")].(object)
		if isArray {
			found, _ = found["items"].(object)
		}
	}
	return found
}

var boundaries = []string{"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}

// What the document says of a field's bounds is what the resource enforces.
func TestBoundsOfSubscriptionsAreThoseOfTheResource(t *testing.T) {
	schemas := whole(t)["components"].(object)["schemas"].(object)
	spec, looked := specSchema(t), 0
	var compare func(schema object, at string)
	compare = func(schema object, at string) {
		schema = shape(t, schema, schemas)
		if at != "" {
			looked++
			want, got := object{}, object{}
			for _, name := range boundaries {
				if value, is := inSpec(spec, at)[name]; is {
					want[name] = asNumber(value)
				}
				if value, is := schema[name]; is {
					got[name] = asNumber(value)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-resource +document):\n%s", at, diff)
			}
		}
		if items, is := schema["items"].(object); is {
			compare(items, at+"[]")
		}
		properties, _ := schema["properties"].(object)
		for name, property := range properties {
			compare(property.(object), strings.TrimPrefix(at+"."+name, "."))
		}
	}
	compare(schemas["SubscriptionFields"].(object), "")
	if looked < 40 {
		t.Errorf("only %d fields were looked at", looked)
	}
}

func asNumber(value any) string {
	text, _ := json.Marshal(value)
	return string(text)
}
