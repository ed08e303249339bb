// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// everything fills in every field of a type, so that one which the API does not know shows.
func everything(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		everything(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			everything(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		everything(v.Index(0), n)
	case reflect.String:
		v.SetString(fmt.Sprint("text", *n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.SetInt(int64(*n))
	}
}

func TestEveryFieldOfTheSpecIsReachedThereAndBack(t *testing.T) {
	var want v1alpha1.WebhookSubscriptionSpec
	everything(reflect.ValueOf(&want).Elem(), new(int))
	shown, err := fieldsOf(&want)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(shown)
	if err != nil {
		t.Fatal(err)
	}
	var fields Fields
	if p := rest.Unmarshal(text, &fields); p != nil {
		t.Fatalf("%s\n%+v", text, p)
	}
	got, err := specOf(&fields)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name := range specNames {
		if name != snake(name) && strings.Contains(string(text), `"`+name+`"`) {
			t.Errorf("%s shows as it is in the resource", name)
		}
	}
}

func TestWhatIsLeftOutIsNotInTheSpec(t *testing.T) {
	var fields Fields
	if p := rest.Unmarshal([]byte(`{"url":"https://a.example","events":["*"],"rate_limit":null}`), &fields); p != nil {
		t.Fatalf("%+v", p)
	}
	spec, err := specOf(&fields)
	want := v1alpha1.WebhookSubscriptionSpec{URL: "https://a.example", Events: []string{"*"}}
	if diff := cmp.Diff(want, spec); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func newHandler() *handler {
	return &handler{Options: Options{Catalogue: event.Builtin(), RateLimit: 60, Namespace: "default"}}
}

func TestMergePatches(t *testing.T) {
	spec := v1alpha1.WebhookSubscriptionSpec{
		URL: "https://a.example", Events: []string{"build.*"}, DisplayName: "A", Description: "of a",
		Filter: &v1alpha1.EventFilter{Project: "P", Severities: []string{"high"}},
		Retry:  &v1alpha1.RetryPolicy{MaxRetries: new(int32(3)), MaxDelaySeconds: new(int32(60))},
	}
	for name, c := range map[string]struct {
		patch string
		want  document // of the resource
		wrong []rest.FieldError
	}{
		"nothing":                  {`{}`, document{}, nil},
		"what is already":          {`{"name":"A","project_filter":"P"}`, document{}, nil},
		"a value":                  {`{"name":"B"}`, document{"displayName": "B"}, nil},
		"null clears":              {`{"description":null,"name":null}`, document{"description": nil, "displayName": nil}, nil},
		"clears what is not there": {`{"team_filter":null,"headers":null}`, document{}, nil},
		"a filter of two":          {`{"project_filter":null}`, document{"filter": document{"project": nil}}, nil},
		"the whole filter":         {`{"project_filter":null,"severity_filter":null}`, document{"filter": nil}, nil},
		"another filter":           {`{"team_filter":"T"}`, document{"filter": document{"team": "T"}}, nil},
		"deep inside":              {`{"retry":{"max_retries":5}}`, document{"retry": document{"maxRetries": 5.0}}, nil},
		"null deep inside":         {`{"retry":{"max_retries":null}}`, document{"retry": document{"maxRetries": nil}}, nil},
		"a whole object":           {`{"retry":null}`, document{"retry": nil}, nil},
		"a list is whole":          {`{"events":["*"]}`, document{"events": []any{"*"}}, nil},
		"several":                  {`{"rate_limit":7,"active":false,"signing":{"secret_ref":{"name":"k"}}}`, document{"rateLimitPerMinute": 7.0, "active": false, "signing": document{"secretRef": document{"name": "k"}}}, nil},
		"no url":                   {`{"url":null}`, nil, []rest.FieldError{{Field: "url", Message: "must be there: the https URL to send events to"}}},
		"no events":                {`{"events":[]}`, nil, []rest.FieldError{{Field: "events", Message: "must hold at least one event type, or * for every type"}}},
		"an unknown event":         {`{"events":["*","build.faild"]}`, nil, []rest.FieldError{{Field: "events[1]", Message: `"build.faild" is not a known event type; did you mean "build.failed"?`}}},
		"an empty filter":          {`{"project_filter":"","team_filter":"","severity_filter":[]}`, nil, []rest.FieldError{{Field: "project_filter", Message: emptyFilter}, {Field: "team_filter", Message: emptyFilter}, {Field: "severity_filter", Message: emptyFilter}}},
	} {
		t.Run(name, func(t *testing.T) {
			var patch document
			if err := json.Unmarshal([]byte(c.patch), &patch); err != nil {
				t.Fatal(err)
			}
			got, p := newHandler().merged(&spec, patch)
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if p == nil {
				p = &rest.Problem{}
			}
			if diff := cmp.Diff(c.wrong, p.Errors, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"name":"a","url":"https://a.example","events":["build.*"],"retry":{"max_retries":1}}`))
	f.Add([]byte(`{"name":"a","headers":[{"name":"X","value_from":{"secret_key_ref":{"name":"s","key":"k"}}}],"tls":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var fields Fields
		if rest.Unmarshal(text, &fields) != nil || newHandler().check(&fields) != nil {
			return
		}
		spec, err := specOf(&fields)
		if err != nil {
			t.Fatalf("taken, but %v", err)
		}
		shown, err := fieldsOf(&spec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(shown)
		var second Fields
		if p := rest.Unmarshal(again, &second); p != nil || err != nil {
			t.Fatalf("%s: %+v", again, p)
		}
		if twice, err := specOf(&second); err != nil || !cmp.Equal(spec, twice, cmpopts.EquateEmpty()) {
			t.Errorf("%v %s", err, cmp.Diff(spec, twice))
		}
	})
}

func TestNamesOfResources(t *testing.T) {
	for name, want := range map[string]string{
		"CI/CD Notifier":               "ci-cd-notifier",
		"Über straße 9":                "uber-stra-e-9",
		"  -- ":                        "subscription",
		"日本":                           "subscription",
		"a" + strings.Repeat("b", 99):  "a" + strings.Repeat("b", 39),
		strings.Repeat("a", 39) + " b": strings.Repeat("a", 39),
		"x_y.z":                        "x-y-z",
	} {
		if got := slug(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if a, b := another("a"), another("a"); len(a) != 7 || !strings.HasPrefix(a, "a-") || a == b || a != strings.ToLower(a) {
		t.Errorf("%q %q", a, b)
	}
}

func TestWhoManagesAnObject(t *testing.T) {
	type m = map[string]string
	for name, c := range map[string]struct {
		labels, annotations m
		tool                string
	}{
		"nobody":                              {m{"app": "a"}, m{"note": "b"}, ""},
		"kustomize or helm labels":            {m{"app.kubernetes.io/instance": "a", "app.kubernetes.io/managed-by": "Helm"}, nil, ""},
		"an Argo CD tracking id":              {nil, m{"argocd.argoproj.io/tracking-id": "a:b"}, "Argo CD"},
		"an Argo CD label":                    {m{"argocd.argoproj.io/instance": "a"}, nil, "Argo CD"},
		"the instance and another of Argo CD": {m{"app.kubernetes.io/instance": "a"}, m{"argocd.argoproj.io/sync-wave": "1"}, "Argo CD"},
		"a Flux kustomization":                {m{"kustomize.toolkit.fluxcd.io/name": "a"}, nil, "Flux"},
		"a Flux release":                      {m{"helm.toolkit.fluxcd.io/name": "a", "app.kubernetes.io/managed-by": "Helm"}, m{"meta.helm.sh/release-name": "a"}, "Flux"},
		"Helm":                                {m{"app.kubernetes.io/managed-by": "Helm"}, m{"meta.helm.sh/release-name": "a"}, "Helm"},
	} {
		sub := &v1alpha1.WebhookSubscription{}
		sub.Labels, sub.Annotations = c.labels, c.annotations
		if tool, _ := manager(sub); tool != c.tool {
			t.Errorf("%s: %q, want %q", name, tool, c.tool)
		}
		if p := checkManaged(sub, false); (p != nil) != (c.tool != "") || (p != nil && (p.Status != 409 || !strings.Contains(p.Detail, c.tool) || !strings.Contains(p.Detail, "?force=true"))) {
			t.Errorf("%s: %+v", name, p)
		}
		if p := checkManaged(sub, true); p != nil {
			t.Errorf("%s, forced: %+v", name, p)
		}
	}
}

func TestMessagesOfTheKubernetesAPIAreInTheWordsOfThisOne(t *testing.T) {
	for message, want := range map[string]string{
		`Invalid value: 0: spec.rateLimitPerMinute in body should be greater than or equal to 1`:                   "should be greater than or equal to 1",
		`Invalid value: "ftp://a: b": must be an absolute URL`:                                                     "must be an absolute URL",
		`Invalid value: "x": send credentials in spec.headers, taken from a Secret with valueFrom`:                 "send credentials in headers, taken from a Secret with value_from",
		`Invalid value: must not be below initialDelaySeconds: raise maxDelaySeconds or lower initialDelaySeconds`: "raise max_delay_seconds or lower initial_delay_seconds",
		`Too many: 101: must have at most 100 items`:                                                               "must have at most 100 items",
		`Duplicate value: "build.failed"`:                                                                          `is there twice: "build.failed"`,
		`Required value`:                                                                                           "must be there",
	} {
		if got := messageOf(metav1.StatusCause{Message: message}); got != want {
			t.Errorf("%s\n got %q\nwant %q", message, got, want)
		}
	}
	for at, want := range map[string]string{
		"spec.url": "url", "spec.displayName": "name", "spec.filter.project": "project_filter",
		"spec.filter.severities[2]": "severity_filter[2]", "spec.rateLimitPerMinute": "rate_limit",
		"spec.retry.maxDelaySeconds": "retry.max_delay_seconds", "spec.events[0]": "events[0]",
		"spec.headers[0].valueFrom.secretKeyRef.name": "headers[0].value_from.secret_key_ref.name",
		"spec": "", "metadata.name": "metadata.name",
	} {
		if got := fieldOf(at); got != want {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
	if p := newHandlerWithLog().refusal(errors.New("dial tcp 10.0.0.1: refused"), "a"); p.Status != 503 || !p.Temporary() || strings.Contains(p.Detail, "10.0.0.1") {
		t.Errorf("%+v", p)
	}
}
