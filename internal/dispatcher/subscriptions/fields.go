// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// Fields are what a client writes of a subscription: the resource's spec under names in snake_case, with the four that
// the API calls otherwise. A field that is left out is not in the spec either.
type Fields struct {
	Name           *string  `json:"name,omitempty"`
	URL            *string  `json:"url,omitempty"`
	Events         []string `json:"events,omitempty"`
	ProjectFilter  *string  `json:"project_filter,omitempty"`
	TeamFilter     *string  `json:"team_filter,omitempty"`
	SeverityFilter []string `json:"severity_filter,omitempty"`
	Description    *string  `json:"description,omitempty"`
	RateLimit      *int32   `json:"rate_limit,omitempty"`
	Active         *bool    `json:"active,omitempty"`
	Paused         *bool    `json:"paused,omitempty"`
	TimeoutSeconds *int32   `json:"timeout_seconds,omitempty"`
	MaxInFlight    *int32   `json:"max_in_flight,omitempty"`
	Retry          *Retry   `json:"retry,omitempty"`
	Signing        *Signing `json:"signing,omitempty"`
	Headers        []Header `json:"headers,omitempty"`
	TLS            *TLS     `json:"tls,omitempty"`
}

// Retry is spec.retry.
type Retry struct {
	MaxRetries          *int32 `json:"max_retries,omitempty"`
	InitialDelaySeconds *int32 `json:"initial_delay_seconds,omitempty"`
	MaxDelaySeconds     *int32 `json:"max_delay_seconds,omitempty"`
}

// Signing is spec.signing.
type Signing struct {
	SecretRef *KeyReference `json:"secret_ref,omitempty"`
	Rotation  *Rotation     `json:"rotation,omitempty"`
}

// Rotation is spec.signing.rotation.
type Rotation struct {
	IntervalSeconds    *int32 `json:"interval_seconds,omitempty"`
	GracePeriodSeconds *int32 `json:"grace_period_seconds,omitempty"`
}

// KeyReference names a key of a Secret or ConfigMap; where the resource names no key, it is left out.
type KeyReference struct {
	Name *string `json:"name,omitempty"`
	Key  *string `json:"key,omitempty"`
}

// Header is one of spec.headers.
type Header struct {
	Name      *string      `json:"name,omitempty"`
	Value     *string      `json:"value,omitempty"`
	ValueFrom *ValueSource `json:"value_from,omitempty"`
}

// ValueSource is where a header's value comes from.
type ValueSource struct {
	SecretKeyRef    *KeyReference `json:"secret_key_ref,omitempty"`
	ConfigMapKeyRef *KeyReference `json:"config_map_key_ref,omitempty"`
}

// TLS is spec.tls.
type TLS struct {
	CABundle          *BundleSource      `json:"ca_bundle,omitempty"`
	ClientCertificate *CertificateSource `json:"client_certificate,omitempty"`
}

// BundleSource is where certificates come from.
type BundleSource struct {
	ConfigMapKeyRef *KeyReference `json:"config_map_key_ref,omitempty"`
	SecretKeyRef    *KeyReference `json:"secret_key_ref,omitempty"`
}

// CertificateSource is where a client certificate comes from.
type CertificateSource struct {
	SecretRef *NameReference `json:"secret_ref,omitempty"`
}

// NameReference names a Secret.
type NameReference struct {
	Name *string `json:"name,omitempty"`
}

// document is a JSON object as encoding/json reads it.
type document = map[string]any

// renamed are the fields whose names are not just in another case: of the API, and below the spec.
var renamed = []struct{ field, spec string }{
	{"name", "displayName"},
	{"rate_limit", "rateLimitPerMinute"},
	{"project_filter", "filter.project"},
	{"team_filter", "filter.team"},
	{"severity_filter", "filter.severities"},
}

// specOf makes the spec that the fields ask for.
func specOf(f *Fields) (v1alpha1.WebhookSubscriptionSpec, error) {
	var spec v1alpha1.WebhookSubscriptionSpec
	fields, err := documentOf(f)
	if err != nil {
		return spec, err
	}
	moved := document{}
	for _, r := range renamed {
		value, given := fields[r.field]
		delete(fields, r.field)
		if given {
			put(moved, r.spec, value)
		}
	}
	for name, value := range fields {
		moved[camel(name)] = rename(value, camel)
	}
	return spec, convert(moved, &spec)
}

func put(in document, at string, value any) {
	outer, inner, nested := strings.Cut(at, ".")
	if !nested {
		in[at] = value
		return
	}
	within, _ := in[outer].(document)
	if within == nil {
		within = document{}
		in[outer] = within
	}
	within[inner] = value
}

// fieldsOf is the reverse of specOf.
func fieldsOf(spec *v1alpha1.WebhookSubscriptionSpec) (document, error) {
	from, err := documentOf(spec)
	if err != nil {
		return nil, err
	}
	fields := document{}
	for _, r := range renamed {
		outer, inner, nested := strings.Cut(r.spec, ".")
		value, given := from[outer]
		if nested {
			within, _ := value.(document)
			value, given = within[inner]
		}
		if given {
			fields[r.field] = value
		}
	}
	for _, r := range renamed {
		outer, _, _ := strings.Cut(r.spec, ".")
		delete(from, outer)
	}
	for name, value := range from {
		fields[snake(name)] = rename(value, snake)
	}
	return fields, nil
}

func documentOf(v any) (document, error) {
	d := document{}
	return d, convert(v, &d)
}

// convert turns one JSON value into another of the same form.
func convert(from, into any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// rename renames every field within a value.
func rename(value any, name func(string) string) any {
	switch v := value.(type) {
	case document:
		out := make(document, len(v))
		for field, inner := range v {
			out[name(field)] = rename(inner, name)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = rename(inner, name)
		}
		return out
	default:
		return value
	}
}

func camel(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}

func snake(name string) string {
	var out strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) {
			out.WriteByte('_')
			r = unicode.ToLower(r)
		}
		out.WriteRune(r)
	}
	return out.String()
}

const (
	maxName     = 100
	emptyFilter = "must not be empty: leave it out to let everything pass"
)

func checkName(p *rest.Problem, name string) {
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxName:
		p.Field("name", "must have 1 to 100 characters")
	case strings.TrimSpace(name) == "" || strings.ContainsFunc(name, unicode.IsControl):
		p.Field("name", "must have a character that shows, and no control character such as a line break")
	}
}

// check finds what the Kubernetes API would not: what may not be left out or empty here, and event types that this
// cluster does not know.
func (h *handler) check(f *Fields) *rest.Problem {
	p := rest.New(http.StatusUnprocessableEntity, "")
	if f.Name != nil {
		checkName(p, *f.Name)
	}
	if f.URL == nil || *f.URL == "" {
		p.Field("url", "must be there: the https URL to send events to")
	}
	if len(f.Events) == 0 {
		p.Field("events", "must hold at least one event type, or * for every type")
	}
	if f.ProjectFilter != nil && *f.ProjectFilter == "" {
		p.Field("project_filter", emptyFilter)
	}
	if f.TeamFilter != nil && *f.TeamFilter == "" {
		p.Field("team_filter", emptyFilter)
	}
	if f.SeverityFilter != nil && len(f.SeverityFilter) == 0 {
		p.Field("severity_filter", emptyFilter)
	}
	h.checkEvents(p, f.Events)
	if len(p.Errors) == 0 {
		return nil
	}
	return p
}
