// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

const signingKeyText = "0123456789abcdef0123456789abcdef"

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

var defaults = Defaults{RatePerMinute: 60, MaxInFlight: 10, Timeout: 30 * time.Second,
	Retry: Retry{MaxRetries: 5, InitialDelay: 5 * time.Second, MaxDelay: time.Hour}}

func subscription(change func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Name: "ci", Namespace: "team-a", UID: "uid-1", Generation: 3},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL: "https://app.example/hook", Events: []string{"build.completed"},
		},
	}
	if change != nil {
		change(sub)
	}
	return sub
}

// generated is the Secret that the manager makes for subscription, with this data.
func generated(data map[string]string) *corev1.Secret {
	s := readable("ci-signing", data)
	s.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(subscription(nil), v1alpha1.SubscriptionKind)}
	return s
}

func readable(name string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team-a"},
		Type:       v1alpha1.SecretTypeSigningKey,
		Data:       map[string][]byte{},
	}
	for k, v := range data {
		s.Data[k] = []byte(v)
	}
	return s
}

func getter(secrets ...*corev1.Secret) Sources {
	return Sources{Now: now, Secret: func(namespace, name string) *corev1.Secret {
		for _, s := range secrets {
			if s.Namespace == namespace && s.Name == name {
				return s
			}
		}
		return nil
	}}
}

func ptr[T any](v T) *T { return &v }

func TestCompileFillsInDefaults(t *testing.T) {
	got := Compile(subscription(nil), getter(generated(map[string]string{"secret": signingKeyText})), defaults)
	want := &Route{
		ID: event.SubscriptionID("uid-1"), Namespace: "team-a", Name: "ci", UID: "uid-1", Generation: 3,
		Active: true, Events: []string{"build.completed"}, Endpoint: ParseEndpoint("https://app.example/hook"),
		Timeout: 30 * time.Second, RatePerMinute: 60, MaxInFlight: 10, Retry: defaults.Retry,
		Keys: [][]byte{[]byte(signingKeyText)},
	}
	if !got.Equal(want) {
		t.Errorf("route differs: %s", cmp.Diff(want, got))
	}
}

func TestCompileTakesWhatTheSpecSays(t *testing.T) {
	sub := subscription(func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Active, s.Spec.Paused = ptr(false), ptr(true)
		s.Spec.Events = []string{"build.completed", "release.created", "build.*", "release.created"}
		s.Spec.Filter = &v1alpha1.EventFilter{Project: "NEXUS", Team: "platform", Severities: []string{"high", "critical"}}
		s.Spec.RateLimitPerMinute, s.Spec.TimeoutSeconds, s.Spec.MaxInFlight = ptr(int32(7)), ptr(int32(8)), ptr(int32(9))
		s.Spec.Retry = &v1alpha1.RetryPolicy{MaxRetries: ptr(int32(0)), InitialDelaySeconds: ptr(int32(1))}
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own", Key: "key"}}
		s.Spec.Headers = []v1alpha1.Header{{Name: "X-Team", Value: ptr("platform")}, {Name: "Authorization",
			ValueFrom: &v1alpha1.HeaderValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "own", Key: "auth"}}}}
	})
	got := Compile(sub, getter(readable("own", map[string]string{"key": signingKeyText, "auth": "Bearer x"})), defaults)
	want := &Route{
		ID: event.SubscriptionID("uid-1"), Namespace: "team-a", Name: "ci", UID: "uid-1", Generation: 3,
		Paused: true, Events: []string{"release.created", "build.*"}, Endpoint: ParseEndpoint("https://app.example/hook"),
		Filter:  Filter{Project: "NEXUS", Team: "platform", Severities: []string{"critical", "high"}},
		Timeout: 8 * time.Second, RatePerMinute: 7, MaxInFlight: 9,
		Retry:   Retry{MaxRetries: 0, InitialDelay: time.Second, MaxDelay: time.Hour},
		Keys:    [][]byte{[]byte(signingKeyText)},
		Headers: []Header{{Name: "X-Team", Value: "platform"}, {Name: "Authorization", Value: "Bearer x", Secret: true}},
	}
	if !got.Equal(want) {
		t.Errorf("route differs: %s", cmp.Diff(want, got))
	}
}

func TestRetryOfTheSpecWinsOverDefaultsThatContradictIt(t *testing.T) {
	cases := map[string]struct {
		policy v1alpha1.RetryPolicy
		want   Retry
	}{
		"an initial delay above the default maximum raises the maximum": {
			v1alpha1.RetryPolicy{InitialDelaySeconds: ptr(int32(7200))}, Retry{5, 2 * time.Hour, 2 * time.Hour}},
		"a maximum below the default initial delay lowers the initial delay": {
			v1alpha1.RetryPolicy{MaxDelaySeconds: ptr(int32(2))}, Retry{5, 2 * time.Second, 2 * time.Second}},
		"nothing set is the default": {v1alpha1.RetryPolicy{}, defaults.Retry},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := compileRetry(&c.policy, defaults.Retry); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestCompileHoldsWhatCannotBeSent(t *testing.T) {
	good := generated(map[string]string{"secret": signingKeyText})
	withHeader := func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: &v1alpha1.HeaderValueSource{
			SecretKeyRef: v1alpha1.SecretKeyReference{Name: "auth", Key: "token"}}}}
	}
	closed := readable("auth", map[string]string{"token": "hidden-token"})
	closed.Type = corev1.SecretTypeOpaque
	labelled := readable("auth", map[string]string{"token": "Bearer x"})
	labelled.Type, labelled.Labels = corev1.SecretTypeOpaque, map[string]string{v1alpha1.LabelReadable: "true"}
	header := func(value string) []*corev1.Secret {
		return []*corev1.Secret{good, readable("auth", map[string]string{"token": value})}
	}
	taken, unowned, merelyOwned := good.DeepCopy(), good.DeepCopy(), good.DeepCopy()
	taken.OwnerReferences[0].UID = "older"
	unowned.OwnerReferences = nil
	merelyOwned.OwnerReferences[0].Controller = nil
	sent := func(s *v1alpha1.WebhookSubscription) {
		withHeader(s)
		s.Spec.Headers[0].ValueFrom.SecretKeyRef = v1alpha1.SecretKeyReference{Name: "ci-signing", Key: "secret"}
	}
	othersKey := readable("auth", map[string]string{"token": signingKeyText})
	othersKey.OwnerReferences = taken.OwnerReferences
	othersKey.Labels = map[string]string{v1alpha1.LabelReadable: "true"}
	orphan := readable("auth", map[string]string{"token": signingKeyText})
	orphan.Labels = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.FieldOwnerManager}
	named := func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "ci-signing"}}
	}

	cases := map[string]struct {
		change  func(*v1alpha1.WebhookSubscription)
		secrets []*corev1.Secret
		hold    string
	}{
		"the signing Secret is missing":                                  {nil, nil, v1alpha1.ReasonSecretNotFound},
		"the signing Secret is the subscription's":                       {nil, []*corev1.Secret{good}, ""},
		"the signing Secret is another subscription's":                   {nil, []*corev1.Secret{taken}, v1alpha1.ReasonSecretConflict},
		"the signing Secret is nobody's":                                 {nil, []*corev1.Secret{unowned}, v1alpha1.ReasonSecretConflict},
		"the signing Secret is owned but not controlled":                 {nil, []*corev1.Secret{merelyOwned}, v1alpha1.ReasonSecretConflict},
		"the signing Secret is the subscription's, and the spec says so": {named, []*corev1.Secret{good}, ""},
		"the signing Secret is nobody's, and the spec says so":           {named, []*corev1.Secret{unowned}, ""},
		"the signing Secret is another's, and the spec says so":          {named, []*corev1.Secret{taken}, v1alpha1.ReasonSecretNotReadable},
		"a header takes the subscription's own signing key":              {sent, []*corev1.Secret{good}, v1alpha1.ReasonSecretNotReadable},
		"a header takes another's signing key":                           {withHeader, []*corev1.Secret{good, othersKey}, v1alpha1.ReasonSecretNotReadable},
		"a header takes a generated key that was orphaned":               {withHeader, []*corev1.Secret{good, orphan}, v1alpha1.ReasonSecretNotReadable},
		"the signing Secret is nobody's, and empty": {nil, []*corev1.Secret{readable("ci-signing", nil)},
			v1alpha1.ReasonSecretConflict},
		"the signing Secret has no such key": {nil, []*corev1.Secret{generated(nil)}, v1alpha1.ReasonSecretKeyMissing},
		"the signing key is too short": {nil, []*corev1.Secret{generated(map[string]string{"secret": "short"})},
			v1alpha1.ReasonSecretKeyInvalid},
		"the Secret of a header is missing":        {withHeader, []*corev1.Secret{good}, v1alpha1.ReasonSecretNotFound},
		"the Secret of a header has not opted in":  {withHeader, []*corev1.Secret{good, closed}, v1alpha1.ReasonSecretNotReadable},
		"the Secret of a header opted in by label": {withHeader, []*corev1.Secret{good, labelled}, ""},
		"the value of a header breaks its line":    {withHeader, header("hidden-token\nX: y"), v1alpha1.ReasonSecretKeyInvalid},
		"the value of a header ends in a newline":  {withHeader, header("hidden-token\n"), v1alpha1.ReasonSecretKeyInvalid},
		"the value of a header has a NUL":          {withHeader, header("hidden-token\x00"), v1alpha1.ReasonSecretKeyInvalid},
		"the value of a header has a tab and é":    {withHeader, header("a\té"), ""},
		"the value of a header is as long as may be": {withHeader,
			header(strings.Repeat("x", v1alpha1.MaxHeaderValueLength)), ""},
		"the value of a header is too long": {withHeader,
			header("hidden-token" + strings.Repeat("x", v1alpha1.MaxHeaderValueLength)), v1alpha1.ReasonSecretKeyInvalid},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := Compile(subscription(c.change), getter(c.secrets...), defaults)
			if r.Hold != c.hold {
				t.Fatalf("hold is %q, want %q", r.Hold, c.hold)
			}
			if (r.HoldDetail == "") != (c.hold == "") {
				t.Errorf("hold %q goes with detail %q", r.Hold, r.HoldDetail)
			}
			if strings.Contains(r.HoldDetail, "hidden-token") || strings.Contains(r.HoldDetail, signingKeyText) {
				t.Errorf("detail shows a value: %q", r.HoldDetail)
			}
			if c.hold == "" && len(r.Keys) == 0 {
				t.Error("route without hold has no key")
			}
			if c.hold == v1alpha1.ReasonSecretConflict && len(r.Keys) > 0 {
				t.Error("route has somebody else's key")
			}
			for _, h := range r.Headers {
				if h.Value == signingKeyText {
					t.Error("a header has a signing key")
				}
			}
		})
	}
}

func TestCompileHoldsWhatTheSpecForbidsToSend(t *testing.T) {
	cases := map[string]struct {
		change       func(*v1alpha1.WebhookSubscriptionSpec)
		hold, detail string // detail is a part
	}{
		"a tls that asks for nothing": {func(s *v1alpha1.WebhookSubscriptionSpec) { s.TLS = &v1alpha1.TLS{} }, "", ""},
		"rotation": {func(s *v1alpha1.WebhookSubscriptionSpec) {
			s.Signing = &v1alpha1.Signing{Rotation: &v1alpha1.KeyRotation{IntervalSeconds: 3600}}
		}, "", ""},
		"a URL with a space":          {withURL("http://h/odd?a=b c"), v1alpha1.ReasonInvalidURL, "spec.url"},
		"a URL with a wide space":     {withURL("http://h/\u3000"), v1alpha1.ReasonInvalidURL, "percent-encode"},
		"a URL with a newline":        {withURL("http://h/\nX: y"), v1alpha1.ReasonInvalidURL, "percent-encode"},
		"a URL with a DEL":            {withURL("http://h/\x7f"), v1alpha1.ReasonInvalidURL, "percent-encode"},
		"a URL with an encoded space": {withURL("http://h/odd?a=b%20c"), "", ""},
		"a URL in another script":     {withURL("https://bücher.example/größe"), "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sub := subscription(func(s *v1alpha1.WebhookSubscription) { c.change(&s.Spec) })
			r := Compile(sub, getter(generated(map[string]string{"secret": signingKeyText})), defaults)
			if r.Hold != c.hold || !strings.Contains(r.HoldDetail, c.detail) {
				t.Errorf("hold is %q (%s), want %q (%s)", r.Hold, r.HoldDetail, c.hold, c.detail)
			}
			if (r.Hold == "") != (len(r.Keys) > 0) {
				t.Errorf("hold %q goes with %d keys", r.Hold, len(r.Keys))
			}
		})
	}
}

func withURL(u string) func(*v1alpha1.WebhookSubscriptionSpec) {
	return func(s *v1alpha1.WebhookSubscriptionSpec) { s.URL = u }
}

func TestPrintedRouteShowsNoSecret(t *testing.T) {
	r := &Route{ID: "sub_1", Namespace: "a", Name: "b", Keys: [][]byte{[]byte("hidden-key")},
		Headers: []Header{{Name: "Authorization", Value: "hidden-value", Secret: true}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(verb+" "+verb, r, r.Headers)
		if strings.Contains(text, "hidden") || !strings.Contains(text, "sub_1") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if text := r.LogValue().String(); text != "sub_1 (a/b)" {
		t.Errorf("log shows %q", text)
	}
}

func TestSourceNamesListsEachReferenceOnce(t *testing.T) {
	sub := subscription(func(s *v1alpha1.WebhookSubscription) {
		for i, name := range []string{"b", "a", "b"} {
			s.Spec.Headers = append(s.Spec.Headers, v1alpha1.Header{Name: fmt.Sprintf("X-%d", i),
				ValueFrom: &v1alpha1.HeaderValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: name, Key: "k"}}})
		}
	})
	if diff := cmp.Diff([]string{"a", "b", "ci-signing"}, SourceNames(sub)); diff != "" {
		t.Error(diff)
	}
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}}
	if diff := cmp.Diff([]string{"a", "b", "ci-signing", "ci-signing-seen", "own"}, SourceNames(sub)); diff != "" {
		t.Error(diff)
	}
}

func TestTheAddressOfAnEndpointShowsNoSecret(t *testing.T) {
	for raw, want := range map[string]string{
		"https://app.example/hook":                       "https://app.example/hook",
		"https://user:pass@app.example:8443/a%2Fb?key=1": "https://app.example:8443/a%2Fb",
		"http://app.example?#part":                       "http://app.example",
	} {
		endpoint := ParseEndpoint(raw)
		if endpoint.Address != want || endpoint.String() != raw {
			t.Errorf("%s: shown as %s, sent to %s", raw, endpoint.Address, endpoint)
		}
	}
}
