// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestAnEndpointFitsIntoARequestLine(t *testing.T) {
	for name, c := range map[string]struct {
		raw, target string // "": it is no endpoint
	}{
		"a space in the path is encoded":       {"https://app.example/a b", "/a%20b"},
		"a space in the query":                 {"https://app.example/?a=1 HTTP/1.1", ""},
		"an encoded space in the query":        {"https://app.example/?a=%20", "/?a=%20"},
		"a space in the zone":                  {"https://[fe80::1%25%20]/", ""},
		"a zone":                               {"https://[fe80::1%25eth0]/", "/"},
		"a newline":                            {"https://app.example/\r\nX: y", ""},
		"an encoded newline":                   {"https://app.example/%0D%0A?%0D%0A", "/%0D%0A?%0D%0A"},
		"a space in a part that is never sent": {"https://app.example/#a b", "/"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if endpoint := ParseEndpoint(c.raw); endpoint != nil {
				got = endpoint.RequestURI()
			}
			if got != c.target {
				t.Errorf("the request target is %q, want %q", got, c.target)
			}
		})
	}
}

func isSpaceOrControl(r rune) bool { return r <= ' ' || r == 0x7f }

// FuzzParseEndpoint holds what is accepted to what is made of it: an address that is shown, and a request line and a
// Host that are written as they are.
func FuzzParseEndpoint(f *testing.F) {
	for _, raw := range []string{
		"https://app.example/hook", "http://app.example:8080?a=1&b=%20", "https://user:pass@app.example:8443/a%2Fb?key=1",
		"https://user@app.example#part", "https://@app.example/?", "https://app.example/%0d%0aX:%20y?%0d%0a#%0d%0a",
		"https://[::1]:8443/", "https://[fe80::1%25eth0]/a", "https://[fe80::1%25%20]/", "https://[fe80::1%25%0d%0a]/", "https://[::ffff:10.0.0.1]",
		"https://bücher.example/straße?ü=ö", "https://xn--bcher-kva.example", "https://日本.example./日本", "https://a。b/",
		"https:app.example/hook", "mailto:a@app.example", "//app.example/hook", "//app.example//a@b/c", "/hook", "", "*",
		"https://app.example/a b", "https://app.example/?a b", "https://app.example/?a=1 HTTP/1.1", "https://app .example/",
		"https://app.example/\r\nX: y", "https://app.example/?\n", "https://app.example/\t", "https://app.example\n",
		"https://app.example/\u2028\u00a0\u0085?\u2028\u00a0\u0085", "https://\u0085app.example/", "https://%C2%85/", "https://%ff/",
		"https://app.example/\xff?\xff", "https://app.example:/", "https://app.example:port/", "https://a\"<>b/", "https://app.example/\x7f",
		"https://app.example?@b?c#d?e", "https://a:b?c@app.example/", "https://app.example/%zz", "https://app.example/?%zz",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		endpoint := ParseEndpoint(raw)
		if endpoint == nil {
			return
		}
		shown, err := url.Parse(endpoint.Address)
		if err != nil {
			t.Fatalf("%q is shown as %q, which is no URL: %v", raw, endpoint.Address, err)
		}
		if shown.User != nil || shown.RawQuery != "" || shown.ForceQuery || shown.Fragment != "" || shown.Host != endpoint.Host {
			t.Errorf("%q is shown as %q", raw, endpoint.Address)
		}
		if target := endpoint.RequestURI(); target == "" || strings.ContainsFunc(target, isSpaceOrControl) {
			t.Errorf("%q makes the request target %q", raw, target)
		}
		if endpoint.Host == "" || strings.ContainsFunc(endpoint.Host, isSpaceOrControl) {
			t.Errorf("%q makes the Host %q", raw, endpoint.Host)
		}
		if ascii, err := httpguts.PunycodeHostPort(endpoint.Host); err == nil && strings.ContainsFunc(ascii, isSpaceOrControl) {
			t.Errorf("%q makes the Host %q", raw, ascii)
		}
	})
}
