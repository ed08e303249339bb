// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rogue

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var (
	plain   = place{"http://", "127.0.0.1"}
	secure  = place{"https://", "127.0.0.1"}
	another = place{"https://", "127.0.0.2"} // which is in no certificate
)

const (
	ok      = "HTTP/1.1 200 OK\r\n"
	chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"

	dripEvery = 50 * time.Millisecond
)

// behaviours are all of them, by name.
func behaviours(proper, foreign *tls.Config) map[string]behaviour {
	all := overHTTP()
	maps.Copy(all, overTLS(proper, foreign))
	maps.Copy(all, overHTTP2(proper))
	return all
}

func overHTTP() map[string]behaviour {
	bomb := compressedBomb()
	size := strconv.Itoa(len(bomb))
	x := strings.Repeat("x", 32<<10)
	say := func(reason string, speak func(net.Conn)) behaviour {
		return behaviour{plain, reason, false, asked(speak)}
	}
	hold := func(speak func(net.Conn)) behaviour { return behaviour{plain, "timeout", true, asked(speak)} }
	return map[string]behaviour{
		"slow-headers":         hold(drip(ok + "X: ")),
		"slow-body":            hold(drip(ok + "Content-Length: 100000\r\n\r\n")),
		"slow-chunks":          hold(drip(chunked + "ffff\r\n")),
		"endless-body":         say("", flood(ok+"\r\n", x)),
		"endless-chunks":       say("", flood(chunked, "8000\r\n"+x+"\r\n")),
		"endless-error":        say("server_error", flood("HTTP/1.1 500 Oops\r\n\r\n", x)),
		"endless-status":       say("invalid_response", flood("HTTP/1.1 200 ", x)),
		"endless-header":       say("invalid_response", flood(ok+"X: ", x)),
		"endless-headers":      say("invalid_response", flood(ok, strings.Repeat("X-Y: z\r\n", 4<<10))),
		"endless-trailers":     say("truncated_response", flood(chunked+"0\r\n", strings.Repeat("X-Y: z\r\n", 4<<10))),
		"endless-extension":    say("truncated_response", flood(chunked+"1;", x)),
		"endless-continue":     say("invalid_response", flood("", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1<<10))),
		"body-beyond-bounds":   say("", flood(ok+"Content-Length: 9223372036854775807\r\n\r\n", x)),
		"length-beyond-bounds": say("invalid_response", flood(ok+"Content-Length: 99999999999999999999\r\n\r\n", "")),
		"chunk-beyond-bounds":  say("truncated_response", flood(chunked+"fffffffffffffffff\r\n", "")),
		"compressed-bomb":      say("", flood(ok+"Content-Encoding: gzip\r\nContent-Length: "+size+"\r\n\r\n"+bomb, "")),
		"hidden-bomb":          say("", flood(ok+"Content-Length: "+size+"\r\n\r\n"+bomb, "")),
		"reset-before-headers": say("connection_reset", reset("")),
		"reset-amid-headers":   say("connection_reset", reset(ok+"X-Y: ")),
		"reset-after-headers":  say("truncated_response", reset(ok+"Content-Length: 9\r\n\r\n")),
		"half-closed":          say("connection_reset", halfClose("")),
		"half-closed-body":     say("truncated_response", halfClose(ok+"Content-Length: 9\r\n\r\n")),
		"other-protocol":       say("unexpected_status", flood("HTTP/1.1 101 Switching Protocols\r\n\r\n", x)),
	}
}

func overTLS(proper, foreign *tls.Config) map[string]behaviour {
	ask := func(config *tls.Config) func(net.Conn) {
		return func(conn net.Conn) {
			encrypted := tls.Server(conn, config)
			if encrypted.Handshake() == nil {
				asked(flood(ok+"Content-Length: 0\r\n\r\n", ""))(encrypted)
			}
		}
	}
	// A record of the handshake that is announced and does not come.
	record := "\x16\x03\x03\x40\x00\x02"
	return map[string]behaviour{
		"tls-of-a-stranger":   {secure, "tls", false, ask(foreign)},
		"tls-of-another-name": {another, "tls", false, ask(proper)},
		"tls-that-is-none":    {secure, "tls", false, flood(ok+"\r\n", "")},
		"tls-reset":           {secure, "tls", false, greeted(reset(""))},
		"tls-that-hangs":      {secure, "timeout", true, func(net.Conn) {}},
		"tls-that-drips":      {secure, "timeout", true, drip(record)},
	}
}

// asked speaks once the request was read.
func asked(speak func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, request.Body); err == nil {
			speak(conn)
		}
	}
}

// greeted speaks once the other side has begun to, which it does not before it is connected.
func greeted(speak func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			speak(conn)
		}
	}
}

// drip sends the beginning, and then a byte now and then.
func drip(begin string) func(net.Conn) {
	return func(conn net.Conn) {
		tick := time.NewTicker(dripEvery)
		defer tick.Stop()
		_, err := io.WriteString(conn, begin)
		for err == nil {
			<-tick.C
			_, err = io.WriteString(conn, "x")
		}
	}
}

// flood sends the beginning, and then the rest for as long as anybody takes it.
func flood(begin, rest string) func(net.Conn) {
	return func(conn net.Conn) {
		_, err := io.WriteString(conn, begin)
		for err == nil && rest != "" {
			_, err = io.WriteString(conn, rest)
		}
	}
}

// reset sends the beginning and breaks the connection off (RST).
func reset(begin string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, begin)
		if c, ok := conn.(*counted); ok {
			conn = c.Conn
		}
		_ = conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // it comes from a TCP listener
		_ = conn.Close()
	}
}

// halfClose sends the beginning and ends its own direction, while it goes on listening.
func halfClose(begin string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, begin)
		if c, ok := conn.(*counted); ok {
			conn = c.Conn
		}
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it comes from a TCP listener
	}
}

// compressedBomb is one megabyte that becomes a thousand.
func compressedBomb() string {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	zeros := make([]byte, 1<<20)
	for out.Len() < 1<<20 {
		_, _ = w.Write(zeros) // into memory
	}
	_ = w.Close()
	return out.String()
}
