// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// SecretGetter finds a Secret that has opted in to being read, nil if there is none of that name.
type SecretGetter func(namespace, name string) *corev1.Secret

// ConfigMapGetter finds a ConfigMap that has opted in to being read, nil if there is none of that name.
type ConfigMapGetter func(namespace, name string) *corev1.ConfigMap

// Sources are what Compile looks at beside a subscription. Secret is required.
type Sources struct {
	Secret SecretGetter
	// ConfigMap finds none if it is nil.
	ConfigMap ConfigMapGetter
	// SharedTLS finds a TLS of that ID which was made before, nil if there is none, so that it need not be made again.
	SharedTLS func(id string) *TLS
	// Now decides which keys are still valid.
	Now time.Time
}

// Compile makes the route of a subscription, with d where its spec says nothing. It always makes one: what cannot be
// sent, for want of a Secret or for what its spec says, is a route with a Hold, whose events wait.
func Compile(sub *v1alpha1.WebhookSubscription, from Sources, d Defaults) *Route {
	spec := &sub.Spec
	r := &Route{
		ID:            event.SubscriptionID(string(sub.UID)),
		Namespace:     sub.Namespace,
		Name:          sub.Name,
		UID:           string(sub.UID),
		Generation:    sub.Generation,
		Active:        sub.IsActive(),
		Paused:        sub.IsPaused(),
		Events:        minimise(spec.Events),
		Filter:        compileFilter(spec.Filter),
		Endpoint:      ParseEndpoint(spec.URL),
		Timeout:       seconds(spec.TimeoutSeconds, d.Timeout),
		RatePerMinute: number(spec.RateLimitPerMinute, d.RatePerMinute),
		MaxInFlight:   number(spec.MaxInFlight, d.MaxInFlight),
		Retry:         compileRetry(spec.Retry, d.Retry),
	}
	if reason, message := sub.Unsendable(); reason != "" {
		r.Hold, r.HoldDetail = reason, message // and without keys: there is nothing to sign
		return r
	}
	compileSecrets(r, sub, from)
	return r
}

// ParseEndpoint returns the endpoint of a URL, nil where it cannot be one. Its request target and Host can be written
// as they are: neither holds a space or a control character, which would make another request of it.
func ParseEndpoint(raw string) *Endpoint {
	parsed, err := url.Parse(raw)
	if err != nil || parsed.Host == "" || breaksRequestLine(parsed.RequestURI()) || breaksRequestLine(parsed.Host) {
		return nil
	}
	shown := *parsed
	shown.User, shown.RawQuery, shown.ForceQuery, shown.Fragment = nil, "", false, ""
	return &Endpoint{URL: parsed, Address: shown.String()}
}

// breaksRequestLine tells of the bytes at which an HTTP/1.1 line, or a part of it, may end. url.Parse lets a space
// be in a query and in the zone of an address.
func breaksRequestLine(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func compileFilter(f *v1alpha1.EventFilter) Filter {
	if f == nil {
		return Filter{}
	}
	severities := slices.Clone(f.Severities)
	slices.Sort(severities)
	return Filter{Project: f.Project, Team: f.Team, Severities: slices.Compact(severities)}
}

// compileRetry fills in defaults. Where a default and what the spec says contradict each other, the spec wins.
func compileRetry(p *v1alpha1.RetryPolicy, d Retry) Retry {
	if p == nil {
		return d
	}
	r := Retry{
		MaxRetries:   number(p.MaxRetries, d.MaxRetries),
		InitialDelay: seconds(p.InitialDelaySeconds, d.InitialDelay),
		MaxDelay:     seconds(p.MaxDelaySeconds, d.MaxDelay),
	}
	if p.MaxDelaySeconds != nil {
		r.InitialDelay = min(r.InitialDelay, r.MaxDelay)
	}
	r.MaxDelay = max(r.MaxDelay, r.InitialDelay)
	return r
}

func number(set *int32, otherwise int) int {
	if set == nil {
		return otherwise
	}
	return int(*set)
}

func seconds(set *int32, otherwise time.Duration) time.Duration {
	if set == nil {
		return otherwise
	}
	return time.Duration(*set) * time.Second
}

// hold is why a route cannot be sent. Its text names the Secret and the key, never a value.
type hold struct{ reason, detail string }

// compileSecrets fills in what comes from Secrets, or says in Hold why it cannot.
func compileSecrets(r *Route, sub *v1alpha1.WebhookSubscription, from Sources) {
	problem := compileKeys(r, sub, from)
	for _, h := range sub.Spec.Headers {
		header, p := compileHeader(sub, h, from)
		if p == nil {
			r.Headers = append(r.Headers, header)
		} else if problem == nil {
			problem = p
		}
	}
	if p := compileTLS(r, sub, from); problem == nil {
		problem = p
	}
	if problem != nil {
		r.Hold, r.HoldDetail = problem.reason, problem.detail
	}
}

func compileHeader(sub *v1alpha1.WebhookSubscription, h v1alpha1.Header, from Sources) (Header, *hold) {
	if h.ValueFrom == nil {
		header := Header{Name: h.Name}
		if h.Value != nil {
			header.Value = *h.Value
		}
		return header, nil
	}
	if ref := h.ValueFrom.ConfigMapKeyRef; ref != nil {
		value, problem := lookUpConfigMap(sub, *ref, from)
		if problem == nil && !ValidHeaderValue(value) {
			problem = &hold{v1alpha1.ReasonConfigMapKeyInvalid,
				fmt.Sprintf("key %q of ConfigMap %q is no value for header %s: %s", ref.Key, ref.Name, h.Name, headerRule)}
		}
		return Header{Name: h.Name, Value: string(value)}, problem
	}
	ref := h.ValueFrom.SecretKeyRef
	value, problem := lookUp(sub, ref, v1alpha1.SecretInHeader, from)
	if problem == nil && !ValidHeaderValue(value) {
		problem = &hold{v1alpha1.ReasonSecretKeyInvalid,
			fmt.Sprintf("key %q of Secret %q is no value for header %s: %s", ref.Key, ref.Name, h.Name, headerRule)}
	}
	return Header{Name: h.Name, Value: string(value), Secret: true}, problem
}

var headerRule = fmt.Sprintf("it must be one line of at most %d bytes without control characters; a newline at its "+
	"end is one too many", v1alpha1.MaxHeaderValueLength)

// ValidHeaderValue tells whether a value can be that of a header.
func ValidHeaderValue(value []byte) bool {
	return len(value) <= v1alpha1.MaxHeaderValueLength && httpguts.ValidHeaderFieldValue(string(value))
}

// lookUp reads a key of a Secret that the subscription may use in this way.
func lookUp(
	sub *v1alpha1.WebhookSubscription, ref v1alpha1.SecretKeyReference, use v1alpha1.SecretUse, from Sources,
) ([]byte, *hold) {
	s := from.Secret(sub.Namespace, ref.Name)
	if s == nil {
		return nil, &hold{v1alpha1.ReasonSecretNotFound,
			fmt.Sprintf("Secret %q is not there, or has not opted in to being read", ref.Name)}
	}
	if refusal := sub.SecretRefusal(s, string(s.Type), use); refusal != "" {
		return nil, &hold{v1alpha1.ReasonSecretNotReadable, fmt.Sprintf("Secret %q %s", ref.Name, refusal)}
	}
	if len(s.Data[ref.Key]) == 0 {
		return nil, &hold{v1alpha1.ReasonSecretKeyMissing,
			fmt.Sprintf("Secret %q has no key %q, or an empty one", ref.Name, ref.Key)}
	}
	return s.Data[ref.Key], nil
}

// SourceNames lists the names of the Secrets and ConfigMaps on which the route of a subscription depends, each once.
func SourceNames(sub *v1alpha1.WebhookSubscription) []string {
	names := []string{sub.SigningKey().Name}
	if !sub.GeneratesSigningKey() {
		names = append(names, v1alpha1.SeenSecretName(sub.Name), v1alpha1.GeneratedSecretName(sub.Name))
	}
	named := func(secret *v1alpha1.SecretKeyReference, configMap *v1alpha1.ConfigMapKeyReference) {
		switch {
		case configMap != nil:
			names = append(names, configMap.Name)
		case secret != nil:
			names = append(names, secret.Name)
		}
	}
	for _, h := range sub.Spec.Headers {
		if h.ValueFrom != nil {
			named(&h.ValueFrom.SecretKeyRef, h.ValueFrom.ConfigMapKeyRef)
		}
	}
	if tls := sub.Spec.TLS; tls != nil {
		if tls.CABundle != nil {
			named(tls.CABundle.SecretKeyRef, tls.CABundle.ConfigMapKeyRef)
		}
		if tls.ClientCertificate != nil {
			names = append(names, tls.ClientCertificate.SecretRef.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
