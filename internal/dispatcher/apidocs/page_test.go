// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/net/html"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// refuser lets nobody in: what it does not stop needs no credentials.
type refuser struct{}

func (refuser) Authenticate(*http.Request) (rest.Caller, *rest.Problem) {
	return nil, rest.New(http.StatusUnauthorized, "nobody is let in")
}

func get(t *testing.T, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	routes, err := New("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	rest.Handler(routes, rest.HandlerOptions{Authenticator: refuser{}}).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestTheDocumentIsServedToAnybody(t *testing.T) {
	w := get(t, "GET", "/openapi.json")
	want, err := Document("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != string(want) {
		t.Errorf("%d %v %.200s", w.Code, w.Header(), w.Body)
	}
	if !json.Valid(want) || get(t, "POST", "/openapi.json").Code != http.StatusMethodNotAllowed {
		t.Error("it is not JSON, or can be written to")
	}
}

// parsed is the page as a browser reads it.
func parsed(t *testing.T) *html.Node {
	t.Helper()
	w := get(t, "GET", "/docs")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	root, err := html.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	if n.Type == html.TextNode {
		b.WriteString(n.Data)
	}
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func TestThePageLoadsNothingAndItsPolicyForbidsIt(t *testing.T) {
	loads := regexp.MustCompile(`(?i)@import|url\(`)
	for n := range parsed(t).Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "img", "iframe", "object", "embed", "video", "audio", "form", "base":
			t.Errorf("there is a <%s>", n.Data)
		case "link":
			if attribute(n, "href") != "data:," {
				t.Errorf("a link to %s", attribute(n, "href"))
			}
		case "a":
			if to := attribute(n, "href"); !strings.HasPrefix(to, "#") && to != "openapi.json" {
				t.Errorf("it leads to %q", to)
			}
		case "style":
			sum := sha256.Sum256([]byte(text(n)))
			known := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
			policy := get(t, "GET", "/docs").Header().Get("Content-Security-Policy")
			if !strings.HasPrefix(policy, "default-src 'none'; ") || !strings.Contains(policy, known) {
				t.Errorf("the policy %q does not know the style, which is %s", policy, known)
			}
			if loads.MatchString(text(n)) {
				t.Error("the style loads something")
			}
		}
		if attribute(n, "style") != "" || attribute(n, "src") != "" {
			t.Errorf("<%s> has a style or a source of its own, which the policy forbids", n.Data)
		}
	}
}

func TestThePageShowsEveryOperationAndItsLinksLeadSomewhere(t *testing.T) {
	ids, lines, links := map[string]int{}, map[string]bool{}, []string{}
	for n := range parsed(t).Descendants() {
		if id := attribute(n, "id"); id != "" {
			ids[id]++
		}
		if attribute(n, "class") == "line" {
			lines[strings.TrimSuffix(strings.TrimSpace(text(n)), " no credentials")] = true
		}
		if to, within := strings.CutPrefix(attribute(n, "href"), "#"); within {
			links = append(links, to)
		}
	}
	for id, count := range ids {
		if count != 1 {
			t.Errorf("%d elements have the id %s", count, id)
		}
	}
	for _, to := range links {
		if ids[to] == 0 {
			t.Errorf("#%s leads nowhere", to)
		}
	}
	want := map[string]bool{}
	operations(whole(t), func(name, _ string, _ object) { want[name] = true })
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-document +page):\n%s", diff)
	}
}

func TestMarkup(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want [][]span
	}{
		"nothing":           {"", nil},
		"paragraphs":        {"a\nb\n\nc\n", [][]span{{{"", "a\nb"}}, {{"", "c"}}}},
		"code keeps stars":  {"x `a**b` y", [][]span{{{"", "x "}, {"code", "a**b"}, {"", " y"}}}},
		"strong":            {"**a** b", [][]span{{{"strong", "a"}, {"", " b"}}}},
		"HTML is just text": {"<b>&", [][]span{{{"", "<b>&"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, paragraphs(c.text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJSONKeepsItsOrderAndTypes(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"order":            {"b: 1\na: [x, 2.5, true, null]", `{"b": 1, "a": ["x", 2.5, true, null]}`},
		"quoted":           {`a: "1"`, `{"a": "1"}`},
		"a time is a text": {"a: 2026-01-02T15:04:05Z", `{"a": "2026-01-02T15:04:05Z"}`},
		"signs":            {`a: <"&>`, `{"a": "<\"&>"}`},
		"long": {"a: {b: 1234567890123456789012345678901234567890123456789}",
			"{\n  \"a\": {\"b\": 1234567890123456789012345678901234567890123456789}\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(pretty(yamlOf(t, c.yaml))); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func yamlOf(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return n.Content[0]
}
