// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/stack"
)

// listeners are those of both programs, with what is asked of each.
func (s *scene) listeners() map[string]door {
	at := func(url string) string { return strings.TrimPrefix(url, "http://") }
	return map[string]door{
		"the event API":            {s.dispatcher, at(s.dispatcher.URL), "POST", "/api/v1/events", 2_000},
		"the dispatcher's metrics": {s.dispatcher, at(s.dispatcher.MetricsURL), "GET", "/metrics", 16},
		"the manager's metrics":    {s.manager, at(s.manager.MetricsURL), "GET", "/metrics", 16},
		"the manager's probes":     {s.manager, at(s.manager.URL), "GET", "/healthz", 16},
	}
}

type door struct {
	program               *stack.Process
	address, method, path string
	most                  int // connections
}

// hidden is a request that somebody wants a proxy to overlook. The connection ends with it, so that each trial does.
const hidden = "GET /hidden HTTP/1.1\r\nHost: hidden\r\nConnection: close\r\n\r\n"

// smuggled are messages that a proxy may read in another way than the listener: METHOD, PATH and HIDDEN stand for what
// is asked. In none the hidden request may be answered, with 404, and only those that the standard allows may be answered other than by 400 or
// 501.
var smuggled = map[string]struct {
	message string
	valid   bool
}{
	"a length and chunks":             {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", true},
	"chunks and a length":             {"Transfer-Encoding: chunked\r\nContent-Length: 999\r\n\r\n0\r\n\r\nHIDDEN", true},
	"chunks alone":                    {"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", true},
	"chunks with an extension":        {"Transfer-Encoding: chunked\r\n\r\n2;x=\"\r\n{}\r\n0;y\r\n\r\nHIDDEN", true},
	"a trailer that is a length":      {"Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 9\r\n\r\nHIDDEN", false},
	"two lengths":                     {"Content-Length: 0\r\nContent-Length: 99\r\n\r\nHIDDEN", false},
	"two lengths in one":              {"Content-Length: 0, 0\r\n\r\nHIDDEN", false},
	"a length with a sign":            {"Content-Length: +0\r\n\r\nHIDDEN", false},
	"a negative length":               {"Content-Length: -1\r\n\r\nHIDDEN", false},
	"a length in hexadecimal":         {"Content-Length: 0x0\r\n\r\nHIDDEN", false},
	"an empty length":                 {"Content-Length:\r\n\r\nHIDDEN", false},
	"a length that overflows":         {"Content-Length: 18446744073709551616\r\n\r\nHIDDEN", false},
	"chunked twice":                   {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", false},
	"chunked and identity":            {"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nHIDDEN", false},
	"another encoding":                {"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nHIDDEN", false},
	"an encoding with a tab":          {"Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\nHIDDEN", false},
	"a space before the colon":        {"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nHIDDEN", false},
	"a space before the name":         {"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nHIDDEN", true}, // it continues the line before
	"a folded encoding":               {"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nHIDDEN", true},
	"a NUL in a header":               {"X: a\x00b\r\n\r\nHIDDEN", false},
	"a carriage return alone":         {"X: a\rTransfer-Encoding: chunked\r\n\r\nHIDDEN", false},
	"two hosts":                       {"Host: b\r\n\r\nHIDDEN", false},
	"a chunk's size with a sign":      {"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\nHIDDEN", false},
	"a chunk's size with a prefix":    {"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\nHIDDEN", false},
	"a chunk's size that overflows":   {"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\nHIDDEN", false},
	"a chunk's size with a line feed": {"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\nHIDDEN", false},
	"a chunk that is longer":          {"Transfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\nHIDDEN", false},
	"a body behind a refused one":     {"Content-Length: 2000000\r\n\r\nHIDDEN", true},
}

// outlandish are first lines that no listener acts on.
func (d door) outlandish() map[string]string {
	return map[string]string{
		"no version":            d.method + " " + d.path + "\r\n",
		"a version of tomorrow": d.method + " " + d.path + " HTTP/3.0\r\n",
		"HTTP/2 unasked":        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
		"a tunnel":              "CONNECT evil.test:443 HTTP/1.1\r\n",
		"a space in the path":   d.method + " " + d.path + " x HTTP/1.1\r\n",
		"a control character":   d.method + " " + d.path + "\x01 HTTP/1.1\r\n",
		"a method that is none": "G(T " + d.path + " HTTP/1.1\r\n",
	}
}

// No message makes a listener see two requests where a proxy may see one.
func TestNoRequestHidesInAnother(t *testing.T) {
	s := startBoth(t)
	token := cluster.Token(t.Context(), t, s.namespace, "publisher", "nexus-webhooks")
	cluster.Grant(t.Context(), t, "event_publisher_role", "", kube.Subject(s.namespace, "publisher"))
	for name, d := range s.listeners() {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the listeners linger before they hang up on a client that may still send
			start := d.method + " " + d.path + " HTTP/1.1\r\nHost: a\r\n"
			if d.method == "POST" {
				start += "Content-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n"
			}
			hidesNothing(t, d, start)
		})
	}
}

func hidesNothing(t *testing.T, d door, start string) {
	if got := d.exchange(t, start+"Content-Length: 0\r\n\r\n"+hidden); len(got) != 2 || got[1] != 404 {
		t.Fatalf("two requests one after the other get %v", got)
	}
	other := strings.Replace(start, " /", " http://other.test/", 1) + "Content-Length: 0\r\nConnection: close\r\n\r\n"
	if got := d.exchange(t, other+hidden); len(got) != 1 {
		t.Errorf("the URL of another host: answers %v", got)
	}
	itself := "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	if got := d.exchange(t, itself+hidden); len(got) != 1 {
		t.Errorf("a question about the listener itself: answers %v", got)
	}
	for what, m := range smuggled {
		got := d.exchange(t, start+strings.Replace(m.message, "HIDDEN", hidden, 1))
		wrong := !m.valid && d.method == "POST" && !slices.Contains([]int{400, 501}, append(got, 0)[0])
		if len(got) == 0 || slices.Contains(got, 404) || got[0] == 202 || wrong {
			t.Errorf("%s: answers %v", what, got)
		}
	}
	d.refusesOutlandish(t)
}

func (d door) refusesOutlandish(t *testing.T) {
	t.Helper()
	for what, line := range d.outlandish() {
		if got := d.exchange(t, line+"Host: a\r\nConnection: close\r\n\r\n"+hidden); len(got) != 1 || got[0] < 400 {
			t.Errorf("%s: answers %v", what, got)
		}
	}
}

// exchange sends a text and returns the statuses of the answers until the listener hangs up.
func (d door) exchange(t *testing.T, text string) (statuses []int) {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%q: no end, after %v", text, statuses)
			}
			return statuses
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode >= 200 {
			statuses = append(statuses, response.StatusCode)
		}
	}
}
