// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func tokenWith(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestTheEndThatATokenClaims(t *testing.T) {
	cases := map[string]struct {
		token string
		want  time.Time
	}{
		"a number":            {tokenWith(`{"exp":1700000000}`), time.Unix(1_700_000_000, 0)},
		"a fraction":          {tokenWith(`{"exp":1700000000.9}`), time.Unix(1_700_000_000, 0)},
		"an exponent":         {tokenWith(`{"exp":1.7e9}`), time.Unix(1_700_000_000, 0)},
		"one that is far off": {tokenWith(`{"exp":1e300}`), forever},
		"one that was long":   {tokenWith(`{"exp":-1e300}`), time.Unix(0, 0)},
		"no claim":            {tokenWith(`{}`), forever},
		"a claim of another":  {tokenWith(`{"exp":"soon"}`), forever},
		"no JSON":             {tokenWith(`exp`), forever},
		"no base64":           {"a.!.c", forever},
		"no JSON web token":   {"0123456789abcdef", forever},
		"too many parts":      {tokenWith(`{"exp":1700000000}`) + ".x", forever},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := expiry(c.token); !got.Equal(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func FuzzAuthorizationHeader(f *testing.F) {
	f.Add("Bearer " + tokenWith(`{"exp":1700000000}`))
	f.Add("bearer  x ")
	f.Add("Basic dXNlcjpwYXNz")
	f.Fuzz(func(t *testing.T, value string) {
		token, problem := bearer(http.Header{"Authorization": {value}})
		if (problem == nil) == (token == "") || len(token) > maxToken {
			t.Fatalf("token %q, problem %v", token, problem)
		}
		if problem != nil && problem.Status != http.StatusUnauthorized {
			t.Errorf("status %d", problem.Status)
		}
		if end := expiry(token); end.Before(time.Unix(0, 0)) {
			t.Errorf("it ends %v", end)
		}
	})
}

func TestAnAddressStandsForItsNetwork(t *testing.T) {
	cases := map[string]string{
		"192.0.2.1:80":          "192.0.2.1/32",
		"[::ffff:192.0.2.1]:80": "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":      "fe80::/64",
		"@":                     netip.Prefix{}.String(),
	}
	for from, want := range cases {
		if got := addressOf(&http.Request{RemoteAddr: from}); got.String() != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
}

func TestBoundedKeepsWhatIsUsed(t *testing.T) {
	const most = 10 * shards
	b := newBounded[string, int](most)
	start := time.Unix(1_700_000_000, 0)
	for i := range 100 * most {
		now := start.Add(time.Duration(i) * time.Second)
		b.put(fmt.Sprint("k", i), &entry[int]{value: i, reviewed: now})
		if i >= 5 && b.get("k5", now) == nil {
			t.Fatalf("what is asked for all the time is gone after %d", i)
		}
		if n := b.len(); n > most {
			t.Fatalf("%d entries, want at most %d", n, most)
		}
	}
	b.remove("k5")
	if b.get("k5", start) != nil {
		t.Error("what was removed is there")
	}
}
