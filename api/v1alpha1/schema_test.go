// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
)

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// apply does what `kubectl apply` does with a new subscription whose spec is a minimal one with the top-level fields of change (YAML) in place of its
// own; null removes a field. It returns what a user sees: the stored object or the refusal.
func apply(t *testing.T, change string) (*unstructured.Unstructured, error) {
	t.Helper()
	spec := map[string]any{"url": "https://your-app.example/webhooks/nexus", "events": []any{"build.completed"}}
	fields := map[string]any{}
	if err := yaml.Unmarshal([]byte(change), &fields); err != nil {
		t.Fatalf("parse the change: %v", err)
	}
	for name, value := range fields {
		spec[name] = value
		if value == nil {
			delete(spec, name)
		}
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	object.SetName("cicd-notifier")
	client, err := dynamic.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return client.Resource(v1alpha1.SubscriptionResource).Namespace(metav1.NamespaceDefault).Create(
		t.Context(), object, metav1.CreateOptions{
			FieldManager: "kubectl", FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll},
		})
}

// urlOfLength is a valid URL of exactly n characters.
func urlOfLength(n int) string {
	const start = "https://your-app.example/"
	return start + strings.Repeat("a", n-len(start))
}

func list(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func TestAWrongSpecIsRefusedWithAMessageThatHelps(t *testing.T) {
	const (
		urlMessage      = "must be an absolute http:// or https:// URL with a host, such as https://"
		noSpaces        = "must not contain spaces or control characters: percent-encode them"
		eventMessage    = "must be an event type such as build.completed, a family such as build.*, or * for every type"
		reserved        = "is set by the service itself"
		hopByHop        = "belongs to a single connection"
		oneHeaderSource = "must have either secretKeyRef or configMapKeyRef: set exactly one of them"
		oneValue        = "must have either value or valueFrom: set exactly one of them"
		headerName      = "must be an HTTP header name such as X-Team"
		secretName      = "must be the name of a Secret"
		secretKey       = "must be a key of a Secret"
		oneLine         = "must be one line without control characters"
		oneCASource     = "must have either configMapKeyRef or secretKeyRef: set exactly one of them"
		configMapName   = "must be the name of a ConfigMap"
		configMapKey    = "must be a key of a ConfigMap"
	)
	long := func(n int) string { return strings.Repeat("a", n) }
	header := func(name string) string { return fmt.Sprintf("headers: [{name: %q, value: x}]", name) }
	fromSecret := func(ref string) string {
		return "headers: [{name: X-Team, valueFrom: {secretKeyRef: " + ref + "}}]"
	}

	cases := map[string]struct {
		change string
		field  string
		want   string
	}{
		"no URL":                        {"url: null", "spec.url", "Required value"},
		"an empty URL":                  {"url: ''", "spec.url", "at least 1 chars long"},
		"a URL of another scheme":       {"url: ftp://your-app.example/x", "spec.url", urlMessage},
		"a URL without a scheme":        {"url: your-app.example/x", "spec.url", urlMessage},
		"a URL with a path only":        {"url: /webhooks", "spec.url", urlMessage},
		"a URL without a host":          {"url: 'https:///webhooks'", "spec.url", urlMessage},
		"a URL with a port and no host": {"url: 'https://:8443/x'", "spec.url", urlMessage},
		"a URL with a broken escape":    {"url: 'https://your-app.example/%zz'", "spec.url", urlMessage},
		"a URL with a newline":          {`url: "https://your-app.example/a\nb"`, "spec.url", urlMessage},
		"a URL with user and password":  {"url: 'https://u:p@your-app.example'", "spec.url", "must not contain credentials"},
		"a URL with a user":             {"url: 'https://u@your-app.example/'", "spec.url", "must not contain credentials"},
		"a URL with an empty user":      {"url: 'https://@your-app.example/'", "spec.url", "must not contain credentials"},
		"a URL with port 0":             {"url: 'https://your-app.example:0/'", "spec.url", "must have a port from 1 to 65535"},
		"a URL with port 65536":         {"url: 'https://your-app.example:65536/'", "spec.url", "must have a port from 1 to"},
		"a URL with an endless port": {
			"url: 'https://your-app.example:99999999999999999999/'", "spec.url", "must have a port from 1 to 65535",
		},
		"a URL with an empty port":             {"url: 'https://your-app.example:'", "spec.url", "add it or remove the ':'"},
		"a URL with an empty port and a path":  {"url: 'https://your-app.example:/x'", "spec.url", "add it or remove the ':'"},
		"a URL with an empty port and a query": {"url: 'https://[::1]:?x'", "spec.url", "add it or remove the ':'"},
		"a URL whose host is a dot":            {"url: 'https://./'", "spec.url", "must have a host without empty parts"},
		"a URL whose host has two dots":        {"url: 'https://a..b/'", "spec.url", "must have a host without empty parts"},
		"a URL whose host starts with a dot":   {"url: 'https://.a.b:1/'", "spec.url", "must have a host without empty parts"},
		"a URL with a space in its query":      {"url: 'http://h/odd?a=b c'", "spec.url", noSpaces},
		"a URL with a space in its path":       {"url: 'http://h/o dd'", "spec.url", noSpaces},
		"a URL with a space at its end":        {"url: 'http://h/odd '", "spec.url", noSpaces},
		"a URL with a wide space":              {`url: "http://h/odd\u3000"`, "spec.url", noSpaces},
		"a URL with a tab":                     {`url: "http://h/odd?a=b\tc"`, "spec.url", noSpaces},
		"a URL with a DEL":                     {`url: "http://h/odd?a=b\x7fc"`, "spec.url", noSpaces},
		"a URL with a C1 control character":    {`url: "http://h/odd?a=b\u0085c"`, "spec.url", noSpaces},
		"a URL of 2,049 characters":            {"url: " + urlOfLength(2049), "spec.url", "may not be more than 2048"},

		"a misspelt field":        {"project_fliter: x", "spec.project_fliter", "unknown field"},
		"a misspelt nested field": {"filter: {projekt: x}", "spec.filter.projekt", "unknown field"},

		"no events":                    {"events: null", "spec.events", "Required value"},
		"an empty list of events":      {"events: []", "spec.events", "should have at least 1 items"},
		"101 events":                   {"events: " + list(101, "a.b%d"), "spec.events", "must have at most 100 items"},
		"an event twice":               {"events: [a.b, a.b]", "spec.events[1]", "Duplicate value"},
		"an event of one word":         {"events: [build]", "spec.events[0]", eventMessage},
		"an event of three words":      {"events: [a.b.c]", "spec.events[0]", eventMessage},
		"an event in upper case":       {"events: [Build.completed]", "spec.events[0]", eventMessage},
		"an event with a hyphen":       {"events: [build.roll-back]", "spec.events[0]", eventMessage},
		"an event with an empty word":  {"events: [build.]", "spec.events[0]", eventMessage},
		"a family with a partial word": {"events: ['build.comp*']", "spec.events[0]", eventMessage},
		"every family's event":         {"events: ['*.completed']", "spec.events[0]", eventMessage},
		"the second event wrong":       {"events: [a.b, 'a b']", "spec.events[1]", eventMessage},
		"an event with a newline":      {`events: ["build.completed\n"]`, "spec.events[0]", eventMessage},
		"an event of 129 characters":   {"events: [a." + long(127) + "]", "spec.events[0]", "may not be more than 128"},

		"an empty display name":             {"displayName: ''", "spec.displayName", "at least 1 chars long"},
		"a display name of 101 characters":  {"displayName: " + long(101), "spec.displayName", "may not be more than 100"},
		"a description of 1,025 characters": {"description: " + long(1025), "spec.description", "may not be more than 1024"},
		"an empty project":                  {"filter: {project: ''}", "spec.filter.project", "at least 1 chars long"},
		"a project of 257 characters": {
			"filter: {project: " + long(257) + "}", "spec.filter.project", "may not be more than 256",
		},
		"an empty team":            {"filter: {team: ''}", "spec.filter.team", "at least 1 chars long"},
		"a team of 257 characters": {"filter: {team: " + long(257) + "}", "spec.filter.team", "may not be more than 256"},
		"no severities":            {"filter: {severities: []}", "spec.filter.severities", "should have at least 1 items"},
		"a severity twice":         {"filter: {severities: [a, a]}", "spec.filter.severities[1]", "Duplicate value"},
		"an empty severity":        {"filter: {severities: ['']}", "spec.filter.severities[0]", "at least 1 chars long"},
		"17 severities": {
			"filter: {severities: " + list(17, "s%d") + "}", "spec.filter.severities", "must have at most 16 items",
		},

		"a rate limit of 0":         {"rateLimitPerMinute: 0", "spec.rateLimitPerMinute", "greater than or equal to 1"},
		"a rate limit of 1,000,001": {"rateLimitPerMinute: 1000001", "spec.rateLimitPerMinute", "or equal to 1000000"},
		"a rate limit of a half":    {"rateLimitPerMinute: 0.5", "spec.rateLimitPerMinute", "must be of type integer"},
		"a timeout of 0":            {"timeoutSeconds: 0", "spec.timeoutSeconds", "greater than or equal to 1"},
		"a timeout of 301":          {"timeoutSeconds: 301", "spec.timeoutSeconds", "less than or equal to 300"},
		"0 in flight":               {"maxInFlight: 0", "spec.maxInFlight", "greater than or equal to 1"},
		"1,001 in flight":           {"maxInFlight: 1001", "spec.maxInFlight", "less than or equal to 1000"},
		"-1 retries":                {"retry: {maxRetries: -1}", "spec.retry.maxRetries", "greater than or equal to 0"},
		"101 retries":               {"retry: {maxRetries: 101}", "spec.retry.maxRetries", "less than or equal to 100"},
		"an initial delay of 0": {
			"retry: {initialDelaySeconds: 0}", "spec.retry.initialDelaySeconds", "greater than or equal to 1",
		},
		"an initial delay of 86,401": {
			"retry: {initialDelaySeconds: 86401}", "spec.retry.initialDelaySeconds", "less than or equal to 86400",
		},
		"a maximum delay of 0": {"retry: {maxDelaySeconds: 0}", "spec.retry.maxDelaySeconds", "greater than or equal to 1"},
		"a maximum delay of 86,401": {
			"retry: {maxDelaySeconds: 86401}", "spec.retry.maxDelaySeconds", "less than or equal to 86400",
		},
		"a maximum delay below the initial one": {
			"retry: {initialDelaySeconds: 10, maxDelaySeconds: 9}", "spec.retry.maxDelaySeconds",
			"must not be below initialDelaySeconds: raise maxDelaySeconds or lower initialDelaySeconds",
		},

		"a key's Secret without a name": {"signing: {secretRef: {key: k}}", "spec.signing.secretRef.name", "Required value"},
		"a key's Secret of no name":     {"signing: {secretRef: {name: My_Key}}", "spec.signing.secretRef.name", secretName},
		"a key with a slash":            {"signing: {secretRef: {name: a, key: a/b}}", "spec.signing.secretRef.key", secretKey},
		"rotation after 3,599 s": {
			"signing: {rotation: {intervalSeconds: 3599}}", "spec.signing.rotation.intervalSeconds", "or equal to 3600",
		},
		"rotation after 63,072,001 s": {
			"signing: {rotation: {intervalSeconds: 63072001}}", "spec.signing.rotation.intervalSeconds", "or equal to 63072000",
		},
		"a grace period of -1 s": {
			"signing: {rotation: {intervalSeconds: 3600, gracePeriodSeconds: -1}}",
			"spec.signing.rotation.gracePeriodSeconds", "greater than or equal to 0",
		},
		"a grace period of 2,592,001 s": {
			"signing: {rotation: {intervalSeconds: 5000000, gracePeriodSeconds: 2592001}}",
			"spec.signing.rotation.gracePeriodSeconds", "less than or equal to 2592000",
		},
		"a grace period above the interval": {
			"signing: {rotation: {intervalSeconds: 3600, gracePeriodSeconds: 3601}}",
			"spec.signing.rotation.gracePeriodSeconds",
			"must not exceed intervalSeconds: lower gracePeriodSeconds or raise intervalSeconds",
		},

		"33 headers":              {"headers: " + list(33, "{name: H%d, value: x}"), "spec.headers", "must have at most 32 items"},
		"a header without a name": {"headers: [{value: x}]", "spec.headers[0].name", "Required value"},
		"a header twice":          {"headers: [{name: A, value: x}, {name: A, value: z}]", "spec.headers[1]", "Duplicate value"},
		"a header twice but for case": {
			"headers: [{name: A, value: x}, {name: a, value: z}]", "spec.headers", "must not name a header twice",
		},
		"a header of 129 characters":    {header(long(129)), "spec.headers[0].name", "may not be more than 128"},
		"a header with a space":         {header("X Team"), "spec.headers[0].name", headerName},
		"a header with a colon":         {header("X-Team:"), "spec.headers[0].name", headerName},
		"a header with a newline":       {header("X-Team\n"), "spec.headers[0].name", headerName},
		"a header with an umlaut":       {header("X-Tür"), "spec.headers[0].name", headerName},
		"a header like ours":            {header("x-nexus-anything"), "spec.headers[0].name", reserved},
		"the signature header":          {header("X-Nexus-Signature-256"), "spec.headers[0].name", reserved},
		"Content-Type":                  {header("Content-Type"), "spec.headers[0].name", reserved},
		"Content-Length":                {header("CONTENT-LENGTH"), "spec.headers[0].name", reserved},
		"User-Agent":                    {header("user-agent"), "spec.headers[0].name", reserved},
		"Host":                          {header("host"), "spec.headers[0].name", reserved},
		"Connection":                    {header("Connection"), "spec.headers[0].name", hopByHop},
		"Keep-Alive":                    {header("keep-alive"), "spec.headers[0].name", hopByHop},
		"Proxy-Authorization":           {header("Proxy-Authorization"), "spec.headers[0].name", hopByHop},
		"TE":                            {header("te"), "spec.headers[0].name", hopByHop},
		"Trailer":                       {header("Trailer"), "spec.headers[0].name", hopByHop},
		"Transfer-Encoding":             {header("Transfer-encoding"), "spec.headers[0].name", hopByHop},
		"Upgrade":                       {header("UPGRADE"), "spec.headers[0].name", hopByHop},
		"a header without a value":      {"headers: [{name: X-Team}]", "spec.headers[0]", oneValue},
		"a header value with a newline": {`headers: [{name: X-Team, value: "a\r\nX-Evil: b"}]`, "spec.headers[0].value", oneLine},
		"a header value with a NUL":     {`headers: [{name: X-Team, value: "a\0"}]`, "spec.headers[0].value", oneLine},
		"a header value with a DEL":     {`headers: [{name: X-Team, value: "a\x7f"}]`, "spec.headers[0].value", oneLine},
		"a header value of 4,097 characters": {
			"headers: [{name: X-Team, value: " + long(4097) + "}]", "spec.headers[0].value", "may not be more than 4096",
		},
		"a header with value and valueFrom": {
			"headers: [{name: X-Team, value: x, valueFrom: {secretKeyRef: {name: a, key: b}}}]", "spec.headers[0]", oneValue,
		},
		"a header from nowhere": {
			"headers: [{name: X-Team, valueFrom: {}}]", "spec.headers[0].valueFrom", oneHeaderSource,
		},
		"a header from everywhere": {
			"headers: [{name: X-Team, valueFrom: {secretKeyRef: {name: a, key: b}, configMapKeyRef: {name: a, key: b}}}]",
			"spec.headers[0].valueFrom", oneHeaderSource,
		},
		"a header from a Secret of no name": {
			fromSecret("{name: A, key: b}"), "spec.headers[0].valueFrom.secretKeyRef.name", secretName,
		},
		"a header from no key": {
			fromSecret("{name: a}"), "spec.headers[0].valueFrom.secretKeyRef.key", "Required value",
		},
		"a header from a key with a slash": {
			fromSecret("{name: a, key: b/c}"), "spec.headers[0].valueFrom.secretKeyRef.key", secretKey,
		},

		"a CA bundle from nowhere": {"tls: {caBundle: {}}", "spec.tls.caBundle", oneCASource},
		"a CA bundle from two places": {
			"tls: {caBundle: {configMapKeyRef: {name: a, key: b}, secretKeyRef: {name: a, key: b}}}",
			"spec.tls.caBundle", oneCASource,
		},
		"a CA bundle from a ConfigMap of no name": {
			"tls: {caBundle: {configMapKeyRef: {name: A, key: b}}}", "spec.tls.caBundle.configMapKeyRef.name", configMapName,
		},
		"a CA bundle from a key with a slash": {
			"tls: {caBundle: {configMapKeyRef: {name: a, key: b/c}}}", "spec.tls.caBundle.configMapKeyRef.key", configMapKey,
		},
		"a client certificate from nowhere": {
			"tls: {clientCertificate: {}}", "spec.tls.clientCertificate.secretRef", "Required value",
		},
		"a client certificate from a Secret of no name": {
			"tls: {clientCertificate: {secretRef: {name: A}}}", "spec.tls.clientCertificate.secretRef.name", secretName,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := apply(t, c.change)
			if err == nil {
				t.Fatal("was accepted")
			}
			if message := err.Error(); !strings.Contains(message, c.field) || !strings.Contains(message, c.want) {
				t.Errorf("message:\n  %s\nmust name the field %q and say:\n  %s", message, c.field, c.want)
			}
		})
	}
}

func TestALegalSpecIsStoredAsItWasApplied(t *testing.T) {
	long := func(n int) string { return strings.Repeat("a", n) }
	cases := map[string]string{
		"the least that is needed":              "{}",
		"every event":                           "events: ['*']",
		"a family and a type with underscores":  "events: ['build.*', system.agent_status_changed, v2.a_1]",
		"100 events":                            "events: " + list(100, "a.b%d"),
		"an event of 128 characters":            "events: [a." + long(126) + "]",
		"a URL of 2,048 characters":             "url: " + urlOfLength(2048),
		"plain http with a port":                "url: http://127.0.0.1:8090/",
		"the highest port":                      "url: 'https://your-app.example:65535/'",
		"an IPv6 host":                          "url: 'https://[2001:db8::1]:8443/x'",
		"a scheme in upper case":                "url: HTTPS://your-app.example",
		"a URL with a query":                    "url: 'https://your-app.example?token=a&b=c'",
		"dots and colons after the host":        "url: 'https://your-app.example./..:/a:?b:=..#:'",
		"an IPv6 host that ends in colons":      "url: 'https://[2001:db8::]/x'",
		"an encoded space":                      "url: 'http://h.example/odd?a=b%20c+d'",
		"an @ in path and query":                "url: 'https://your-app.example/@me?mail=a@b.example'",
		"the lowest numbers":                    "{rateLimitPerMinute: 1, timeoutSeconds: 1, maxInFlight: 1}",
		"the highest numbers":                   "{rateLimitPerMinute: 1000000, timeoutSeconds: 300, maxInFlight: 1000}",
		"the shortest retries":                  "retry: {maxRetries: 0, initialDelaySeconds: 1, maxDelaySeconds: 1}",
		"the longest retries":                   "retry: {maxRetries: 100, initialDelaySeconds: 86400, maxDelaySeconds: 86400}",
		"only a maximum delay":                  "retry: {maxDelaySeconds: 1}",
		"a display name of 100 wide characters": "displayName: " + strings.Repeat("ü", 100),
		"a description of 1,024 characters":     "description: " + long(1024),
		"switches off":                          "{active: false, paused: true}",
		"every filter": "filter: {project: " + long(256) + ", team: " + long(256) + ", severities: " +
			list(16, "s%d") + "}",
		"a key of its own":          "signing: {secretRef: {name: my-key, key: .hmac_KEY-1}}",
		"a key without a key name":  "signing: {secretRef: {name: my-key}}",
		"the fastest rotation":      "signing: {rotation: {intervalSeconds: 3600, gracePeriodSeconds: 3600}}",
		"the slowest rotation":      "signing: {rotation: {intervalSeconds: 63072000, gracePeriodSeconds: 2592000}}",
		"rotation without grace":    "signing: {rotation: {intervalSeconds: 3600, gracePeriodSeconds: 0}}",
		"rotation on request only":  "signing: {rotation: {gracePeriodSeconds: 2592000}}",
		"rotation and a key":        "signing: {secretRef: {name: a}, rotation: {intervalSeconds: 3600}}",
		"32 headers":                "headers: " + list(32, "{name: H%d, value: x}"),
		"a header of any token":     `headers: [{name: "!#$%&'*+-.^_` + "`" + `|~09azAZ", value: x}]`,
		"a header with a tab":       `headers: [{name: X-Team, value: "a\tb"}]`,
		"an empty header":           "headers: [{name: X-Team, value: ''}]",
		"a header of 4,096":         "headers: [{name: X-Team, value: " + long(4096) + "}]",
		"a header from a Secret":    "headers: [{name: Authorization, valueFrom: {secretKeyRef: {name: a.b, key: auth}}}]",
		"a header almost like ours": "headers: [{name: X-Nexus, value: x}, {name: Hostname, value: x}]",
		"a CA bundle in a ConfigMap and a client certificate": "tls: {caBundle: {configMapKeyRef: {name: a, key: ca.crt}}, " +
			"clientCertificate: {secretRef: {name: a}}}",
		"a header from a ConfigMap": "headers: [{name: X-Team, valueFrom: {configMapKeyRef: {name: a.b, key: team}}}]",
		"a CA bundle in a Secret":   "tls: {caBundle: {secretKeyRef: {name: a, key: ca.crt}}}",
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			stored, err := apply(t, change)
			if err != nil {
				t.Fatalf("was refused: %v", err)
			}
			fields := map[string]any{}
			if err := yaml.Unmarshal([]byte(change), &fields); err != nil {
				t.Fatalf("parse the change: %v", err)
			}
			spec, _, _ := unstructured.NestedMap(stored.Object, "spec")
			for _, base := range []string{"url", "events"} {
				if _, changed := fields[base]; !changed {
					delete(spec, base)
				}
			}
			if got, want := toYAML(t, spec), toYAML(t, fields); got != want {
				t.Errorf("stored:\n%s\napplied:\n%s", got, want)
			}
		})
	}
}

func toYAML(t *testing.T, value any) string {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatalf("print: %v", err)
	}
	return string(text)
}
