// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// listen serves the handler and returns its address.
func listen(t *testing.T, handler http.HandlerFunc, l ServerLimits) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(handler, l)
	go func() { _ = server.Serve(listener) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

// send opens a connection and sends a text.
func send(t *testing.T, address, text string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// What follows a request whose end a proxy may see elsewhere is not answered, whoever answers the request.
func TestConnectionsEndWhereReadersDiffer(t *testing.T) {
	address := listen(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, ServerLimits{})
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	for name, request := range map[string]string{
		"chunks": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks about the server itself": "OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks of HTTP/1.0": "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n37\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answers, err := io.ReadAll(send(t, address, request+hidden))
			if n := strings.Count(string(answers), "HTTP/1."); n != 1 || err != nil {
				t.Errorf("%d answers (%v): %s", n, err, answers)
			}
		})
	}
}

func TestHeadersOfManyLinesAreRefusedBeforeTheBody(t *testing.T) {
	address := listen(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, ServerLimits{})
	for lines, want := range map[int]string{maxHeaderLines - 2: "HTTP/1.1 200", maxHeaderLines: "HTTP/1.1 431"} {
		text := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n" + strings.Repeat("A: b\r\n", lines) + "\r\n"
		if want == "HTTP/1.1 200" {
			text += "x"
		}
		answer := make([]byte, len(want))
		if _, err := io.ReadFull(send(t, address, text), answer); err != nil || string(answer) != want {
			t.Errorf("%d further lines: %s (%v), want %s", lines, answer, err, want)
		}
	}
}

// Readers that do not take their answers keep nobody from the metrics.
func TestSlowReadersHoldNoScrapeUp(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	many := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "many", Help: "more than sockets hold"}, []string{"of"})
	registry.MustRegister(many)
	for i := range 2000 {
		many.WithLabelValues(fmt.Sprint(strings.Repeat("x", 4<<10), i))
	}
	address := listen(t, Metrics(registry, promhttp.HTTPErrorOnError).ServeHTTP, ServerLimits{})
	for range maxScrapes {
		if _, err := io.ReadFull(send(t, address, question), make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if got := status(t, send(t, address, question)); got != "HTTP/1.1 200 OK" {
		t.Errorf("the answer is %q", got)
	}
}

type slow struct{ begun, finish chan struct{} }

func (slow) Describe(chan<- *prometheus.Desc) {}

func (s slow) Collect(chan<- prometheus.Metric) {
	s.begun <- struct{}{}
	<-s.finish
}

func TestFewScrapesAtOnce(t *testing.T) {
	registry, s := prometheus.NewRegistry(), slow{make(chan struct{}), make(chan struct{})}
	registry.MustRegister(s)
	metrics := Metrics(registry, promhttp.HTTPErrorOnError)
	scrape := func() int {
		answer := httptest.NewRecorder()
		metrics.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return answer.Code
	}
	codes := make(chan int)
	for range maxScrapes {
		go func() { codes <- scrape() }()
		<-s.begun
	}
	if code := scrape(); code != http.StatusServiceUnavailable {
		t.Errorf("one more is answered %d", code)
	}
	close(s.finish)
	for range maxScrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of few is answered %d", code)
		}
	}
}
