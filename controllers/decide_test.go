// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"log/slog"
	"strings"
	"testing"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestCheckEvents(t *testing.T) {
	cases := map[string]struct {
		patterns []string
		want     string // "" if all of them are fine
	}{
		"a type":                 {[]string{"release.rolled_back"}, ""},
		"a family":               {[]string{"release.*"}, ""},
		"everything":             {[]string{"*"}, ""},
		"a misspelt type":        {[]string{"*", "build.faild"}, `spec.events[1]: "build.faild" is no event type of this cluster; did you mean "build.failed"?`},
		"a misspelt family":      {[]string{"deploiment.*"}, `spec.events[0]: no event type of this cluster begins with "deploiment."; did you mean "deployment.*"?`},
		"a type in no family":    {[]string{"ticket.failed"}, `spec.events[0]: "ticket.failed" is no event type of this cluster; did you mean "ticket.created"?`},
		"a type like no other":   {[]string{"x.y"}, `spec.events[0]: "x.y" is no event type of this cluster; GET /api/v1/event-types lists the types that it knows`},
		"a family like no other": {[]string{"zzzzzz.*"}, `spec.events[0]: no event type of this cluster begins with "zzzzzz."; GET /api/v1/event-types lists the types that it knows`},
		"only the first counts":  {[]string{"build.faild", "x.y"}, `spec.events[0]: "build.faild" is no event type of this cluster; did you mean "build.failed"?`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := checkEvents(c.patterns, event.Builtin())
			if c.want == "" {
				if !got.ok || got.reason != v1alpha1.ReasonAccepted {
					t.Errorf("got %+v", got)
				}
				return
			}
			if got.ok || got.reason != v1alpha1.ReasonUnknownEventType || got.message != c.want {
				t.Errorf("got  %+v\nwant %s", got, c.want)
			}
		})
	}
}

func TestHostOf(t *testing.T) {
	cases := map[string]string{
		"https://your-app.example/webhooks": "your-app.example",
		"http://127.0.0.1:8090":             "127.0.0.1:8090",
		"https://[2001:db8::1]:8443/x":      "[2001:db8::1]:8443",
		"https://your-app.example/%zz":      "",
	}
	for rawURL, want := range cases {
		if got := hostOf(rawURL); got != want {
			t.Errorf("hostOf(%q) = %q, want %q", rawURL, got, want)
		}
	}
}

func TestSummaryTakesTheFirstThatIsWrong(t *testing.T) {
	fine := finding{ok: true, reason: "Fine"}
	first, second := wrong("First", "first"), wrong("Second", "second")
	if got := summary(fine, first, second); got != first {
		t.Errorf("got %+v", got)
	}
	if got := summary(fine, fine); !got.ok || got.reason != v1alpha1.ReasonReady {
		t.Errorf("got %+v", got)
	}
}

func TestASpecIsAcceptedUnlessItCannotBeSent(t *testing.T) {
	cases := map[string]struct {
		change          func(*v1alpha1.WebhookSubscriptionSpec)
		reason, message string // message is a part
	}{
		"a tls that asks for nothing": {func(s *v1alpha1.WebhookSubscriptionSpec) {
			s.TLS = &v1alpha1.TLS{}
		}, v1alpha1.ReasonAccepted, "can match an event"},
		"rotation": {func(s *v1alpha1.WebhookSubscriptionSpec) {
			s.Signing = &v1alpha1.Signing{Rotation: &v1alpha1.KeyRotation{IntervalSeconds: 3600}}
		}, v1alpha1.ReasonAccepted, "can match an event"},
		"a URL with a space": {func(s *v1alpha1.WebhookSubscriptionSpec) {
			s.URL = "http://h/odd?a=b c"
		}, v1alpha1.ReasonInvalidURL, "spec.url contains a space or a control character: percent-encode it"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sub := &v1alpha1.WebhookSubscription{Spec: v1alpha1.WebhookSubscriptionSpec{
				URL: "https://your-app.example", Events: []string{"*"},
			}}
			c.change(&sub.Spec)
			got := checkSpec(sub, event.Builtin())
			if got.ok != (c.reason == v1alpha1.ReasonAccepted) || got.reason != c.reason ||
				!strings.Contains(got.message, c.message) {
				t.Errorf("got %+v, want %s: %s", got, c.reason, c.message)
			}
		})
	}
}
