// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/test/contract"
	"nexus.io/webhooks/test/stack"
)

var theContract = sync.OnceValues(contract.Load)

func documented(t *testing.T) *contract.Contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inContract holds an exchange to the OpenAPI document.
func inContract(t *testing.T, request *http.Request, body string, r reply) {
	t.Helper()
	if err := documented(t).Check(request, []byte(body), r.status, r.header, []byte(r.text)); err != nil {
		t.Errorf("the API and its document differ: %v", err)
	}
}

// things make what a path is about, and return its id.
var things = map[string]func(*testing.T, *stack.Stack) string{
	"/api/v1/deliveries/": func(t *testing.T, s *stack.Stack) string { return waiting(t, s).Deliveries[0].DeliveryID },
	"/api/v1/events/":     func(t *testing.T, s *stack.Stack) string { return waiting(t, s).EventID },
	"/api/v1/operations/": func(t *testing.T, s *stack.Stack) string {
		body := fmt.Sprintf(`{"subscription_id": %q}`, waiting(t, s).Deliveries[0].SubscriptionID)
		var begun struct {
			OperationID string `json:"operation_id"`
		}
		r := call(t, s, 0, "POST", "/api/v1/deliveries/cancel", body)
		if err := json.Unmarshal([]byte(r.text), &begun); err != nil || begun.OperationID == "" {
			t.Fatalf("%d %s: %v", r.status, r.text, err)
		}
		return begun.OperationID
	},
	"/api/v1/subscriptions/": func(t *testing.T, s *stack.Stack) string {
		// A name of its own, since nothing here collects the Secret of one that is gone.
		return made(t, s, draft("thing-"+strings.ToLower(rand.Text()[:8]), s.Receiver.URL+"/ok/thing")).ID
	},
}

// published is the answer to an event.
type published struct {
	EventID    string `json:"event_id"`
	Deliveries []struct {
		DeliveryID     string `json:"delivery_id"`
		SubscriptionID string `json:"subscription_id"`
	}
}

// waiting publishes an event to a subscription that is paused.
func waiting(t *testing.T, s *stack.Stack) (p published) {
	t.Helper()
	name := "waiting-" + strings.ToLower(rand.Text()[:8])
	sub := made(t, s, draft(name, s.Receiver.URL+"/ok/thing"))
	call(t, s, 0, "POST", "/api/v1/subscriptions/"+sub.ID+"/pause", "").want(t, http.StatusOK)
	r := call(t, s, 0, "POST", "/api/v1/events", event(name, name))
	if err := json.Unmarshal([]byte(r.text), &p); err != nil || len(p.Deliveries) != 1 {
		t.Fatalf("%d %s: %v", r.status, r.text, err)
	}
	return p
}

// targetOf is where to send an operation's request: with something that is there, and with the query.
func targetOf(t *testing.T, s *stack.Stack, o contract.Operation, query url.Values) string {
	t.Helper()
	target := o.Path
	if prefix, _, has := strings.Cut(o.Path, "{id}"); has {
		thing := things[prefix]
		if thing == nil {
			t.Fatalf("say in things how to make what %s is about", o.Path)
		}
		target = strings.Replace(target, "{id}", thing(t, s), 1)
	}
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return target
}

// bodies returns the documented examples of an operation's JSON body; without a body, "".
func bodies(o contract.Operation) (all []string) {
	body, _ := o.Object["requestBody"].(contract.Object)
	content, _ := body["content"].(contract.Object)
	media, has := content["application/json"].(contract.Object)
	if !has {
		return []string{""}
	}
	if e, has := media["example"]; has {
		all = append(all, contract.JSON(e))
	}
	several, _ := media["examples"].(contract.Object)
	for _, e := range several {
		e, _ := e.(contract.Object)
		all = append(all, contract.JSON(e["value"]))
	}
	return all
}

// everyOperation runs a test for each operation of the document.
func everyOperation(t *testing.T, test func(t *testing.T, o contract.Operation)) {
	for _, o := range documented(t).Operations() {
		t.Run(fmt.Sprint(o.Object["operationId"]), func(t *testing.T) { test(t, o) })
	}
}

func TestTheAPIIsAsDocumented(t *testing.T) {
	s := start(t, 1)
	t.Run("the examples work", func(t *testing.T) { examplesWork(t, s) })
	t.Run("the parameters are those that it reads", func(t *testing.T) { parametersAreRead(t, s) })
	t.Run("the fields are those that it takes", func(t *testing.T) { fieldsAreTaken(t, s) })
}

// Each documented example is taken, and answered as the document says.
func examplesWork(t *testing.T, s *stack.Stack) {
	everyOperation(t, func(t *testing.T, o contract.Operation) {
		query := url.Values{}
		for _, p := range documented(t).Parameters(o) {
			switch example := p["example"]; {
			case p["in"] != "query":
			case p["name"] == "namespace":
				query.Set("namespace", s.Namespace)
			case example != nil:
				query.Set(p["name"].(string), fmt.Sprint(example))
			}
		}
		examples := bodies(o)
		if len(examples) == 0 {
			t.Fatal("its body has no example")
		}
		for _, body := range examples {
			r := call(t, s, 0, o.Method, targetOf(t, s, o, query), body)
			if r.status >= http.StatusMultipleChoices {
				t.Errorf("%s: %d %s", body, r.status, r.text)
			}
			if o.Object["operationId"] == "createSubscription" {
				endsWithTest(t, s, r.want(t, http.StatusCreated).ResourceName)
			}
		}
	})
}

// A parameter that nobody knows is refused by naming those that are known. What is open to everybody, the probes and the
// description, looks at no query: whoever checks a health may put there what they like.
func parametersAreRead(t *testing.T, s *stack.Stack) {
	everyOperation(t, func(t *testing.T, o contract.Operation) {
		var want []string
		for _, p := range documented(t).Parameters(o) {
			if p["in"] == "query" {
				want = append(want, p["name"].(string))
			}
		}
		needs, says := o.Object["security"].([]any)
		isOpen := says && len(needs) == 0
		const unknown = "nobody_knows_it"
		r := call(t, s, 0, o.Method, targetOf(t, s, o, url.Values{unknown: {"x"}}), bodies(o)[0])
		_, known, found := strings.Cut(r.mistake(unknown), "which takes ")
		var got []string
		if found {
			got = strings.Split(known, ", ")
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || (r.mistake(unknown) == "") != isOpen {
			t.Errorf("%d %s (-document +API):\n%s", r.status, r.text, diff)
		}
	})
}

// mistake is what a refusal says of a field, "" for nothing.
func (r reply) mistake(field string) string {
	var p struct {
		Errors []struct{ Field, Message string }
	}
	if r.status < http.StatusBadRequest || json.Unmarshal([]byte(r.text), &p) != nil {
		return ""
	}
	for _, e := range p.Errors {
		if e.Field == field {
			return e.Message
		}
	}
	return ""
}

// fieldsAreTaken compares the bodies' fields with what the API says of them.
func fieldsAreTaken(t *testing.T, s *stack.Stack) {
	looked := 0
	everyOperation(t, func(t *testing.T, o contract.Operation) {
		body, _ := o.Object["requestBody"].(contract.Object)
		content, _ := body["content"].(contract.Object)
		media, _ := content["application/json"].(contract.Object)
		schema, _ := media["schema"].(contract.Object)
		if schema == nil || schema["oneOf"] != nil { // none, or a batch of events, of which each is as in its own call
			return
		}
		looked++
		target := targetOf(t, s, o, nil)
		f := fields{t: t, send: func(body any) reply { return call(t, s, 0, o.Method, target, contract.JSON(body)) }}
		f.object("", schema, func(inner any) any { return inner })
	})
	if looked < 5 {
		t.Errorf("only %d bodies were looked at", looked)
	}
}

type fields struct {
	t    *testing.T
	send func(body any) reply
}

// flat is what a schema takes but null.
func (f *fields) flat(schema contract.Object) contract.Object {
	for _, key := range []string{"oneOf", "allOf"} {
		if several, is := schema[key].([]any); is {
			return f.flat(several[0].(contract.Object))
		}
	}
	if _, is := schema["$ref"]; is {
		return f.flat(documented(f.t).Resolve(schema))
	}
	return schema
}

// object looks at the fields of an object at a path, which wrap puts into a body.
func (f *fields) object(at string, schema contract.Object, wrap func(any) any) {
	properties, _ := f.flat(schema)["properties"].(contract.Object)
	if properties == nil {
		return
	}
	const unknown = "nobody_knows_it"
	said := f.send(wrap(contract.Object{unknown: 1})).mistake(joined(at, unknown))
	_, known, lists := strings.Cut(said, "the fields here are ")
	if diff := cmp.Diff(strings.Join(slices.Sorted(maps.Keys(properties)), ", "), known); said == "" || (lists && diff != "") {
		f.t.Errorf("%s: %q (-document +API):\n%s", at, said, diff)
	}
	for name, property := range properties {
		f.field(joined(at, name), property.(contract.Object), func(inner any) any {
			return wrap(contract.Object{name: inner})
		})
	}
}

// field looks at one field: an example is taken for what it is, another type is not.
func (f *fields) field(at string, property contract.Object, wrap func(any) any) {
	examples, _ := property["examples"].([]any)
	if len(examples) == 0 {
		f.t.Errorf("%s has no example", at)
		return
	}
	r := f.send(wrap(examples[0]))
	if said := r.mistake(at); strings.Contains(said, "not known") || strings.Contains(said, "not a field") || strings.Contains(said, "must be a") {
		f.t.Errorf("%s: an example is refused: %s", at, said)
	}
	schema := f.flat(property)
	var wrong any = "a text"
	if kinds, _ := schema["type"].([]any); schema["type"] == "string" || slices.Contains(kinds, "string") {
		wrong = 7
	}
	if said := f.send(wrap(wrong)).mistake(at); !strings.Contains(said, "must be") {
		f.t.Errorf("%s: of %v it says %q", at, wrong, said)
	}
	if items, is := schema["items"].(contract.Object); is {
		at, property = at+"[0]", items
		inner := wrap
		wrap = func(item any) any { return inner([]any{item}) }
	}
	f.object(at, property, wrap)
}

func joined(at, name string) string {
	return strings.TrimPrefix(at+"."+name, ".")
}
