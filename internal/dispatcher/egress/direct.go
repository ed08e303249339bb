// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpguts"
)

// direct sends small requests over HTTP/1.1 in the goroutine of the caller: one write, then reads to the end of the
// answer. http.Transport has two goroutines for each connection and hands every request to them and back, which costs
// more than the rest of an exchange with an endpoint nearby. Answers are still parsed by net/http.
type direct struct {
	peers    *peers
	dial     dialFunc
	handOver *handOver
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// maxDirectBody is the largest body that goes the direct way, in bytes: what a socket takes at once whether or not the
// peer reads. A larger one needs somebody who reads the answer while it is written.
const maxDirectBody = 16 << 10

// maxInformational is the number of 1xx answers that may come before the final one, as in http.Transport.
const maxInformational = 5

// suits tells whether a request may go the direct way, whatever its endpoint.
func suits(req *http.Request) bool {
	return req.Method == http.MethodPost && req.Body != nil && req.ContentLength > 0 && req.ContentLength <= maxDirectBody
}

// connection returns one that is kept and lives, or a new one. It returns none where the peer turns out to speak
// HTTP/2: the connection is then handed over.
func (d *direct) connection(next call, p *peer) (*conn, error) {
	for c := d.peers.take(p); c != nil; c = d.peers.take(p) {
		if c.alive() && c.turnTo(next) {
			c.reused = true
			return c, nil
		}
		c.discard()
	}
	ctx, cancel := next.context()
	defer cancel()
	socket, err := d.dial(ctx, "tcp", p.address)
	if err != nil {
		return nil, err
	}
	if speaksHTTP2(socket) {
		d.peers.learnHTTP2(p, askedForCertificate(socket))
		d.handOver.put(p.address, socket)
		return nil, nil
	}
	return newConn(socket, p, d.peers), nil
}

// roundTrip sends the request on a connection.
func (c *conn) roundTrip(call call) (*http.Response, error) {
	defer func() { _ = call.Body.Close() }() // as a RoundTripper must; it is in memory
	message := messages.Get().(*[]byte)      //nolint:forcetypeassert // the pool holds nothing else
	defer messages.Put(message)
	var err error
	if *message, err = appendRequest((*message)[:0], call.Request, c.peer.host); err != nil {
		c.peers.keep(c) // nothing was sent
		return nil, err
	}
	res, err := c.exchange(call, *message)
	if err != nil {
		c.discard()
		return nil, call.explain(err)
	}
	return res, nil
}

var messages = sync.Pool{New: func() any { return new([]byte) }}

// appendRequest writes the request as RFC 9112 has it. Names and values are checked, since a line break in one would
// make another request of it.
func appendRequest(dst []byte, req *http.Request, host string) ([]byte, error) {
	dst = append(dst, "POST "...)
	dst = append(dst, req.URL.RequestURI()...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	dst = append(dst, "\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, req.ContentLength, 10)
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return dst, fmt.Errorf("invalid header name %q", name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return dst, fmt.Errorf("invalid value of the header %q", name)
			}
			dst = append(append(append(append(dst, "\r\n"...), name...), ": "...), value...)
		}
	}
	dst = append(dst, "\r\n\r\n"...)
	return appendBody(dst, req)
}

func appendBody(dst []byte, req *http.Request) ([]byte, error) {
	head := len(dst)
	length := head + int(req.ContentLength)
	if cap(dst) < length {
		dst = append(make([]byte, 0, length+1<<10), dst...)
	}
	dst = dst[:length]
	if _, err := io.ReadFull(req.Body, dst[head:]); err != nil {
		return dst, fmt.Errorf("read the request's body: %w", err)
	}
	return dst, nil
}

// conn is a connection on which one exchange runs at a time.
type conn struct {
	net.Conn
	peer    *peer
	peers   *peers
	reader  *bufio.Reader
	allowed int  // bytes that may still be read
	reused  bool // served an exchange before
	remote  net.Addr
	raw     syscall.RawConn // nil where there is none
	look    func(uintptr)   // is peek, made once
	quiet   bool            // when it was looked at last, nothing could be read
	since   time.Time       // idle since
	release func() bool     // ends the watch over a context, false if that ended already; nil without a watch
	watched <-chan struct{} // of that context, where the watch lasts longer than an exchange
}

func newConn(socket net.Conn, p *peer, all *peers) *conn {
	c := &conn{Conn: socket, peer: p, peers: all, raw: rawConn(socket)}
	if remote := socket.RemoteAddr(); remote != nil {
		c.remote = address{remote, remote.String()}
	}
	c.look = c.peek
	c.reader = bufio.NewReaderSize((*bounded)(c), 4<<10)
	return c
}

// address has its text at hand, for which every exchange asks.
type address struct {
	net.Addr
	text string
}

func (a address) String() string { return a.text }

// RemoteAddr is that of the socket.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// bounded reads from a conn what it allows.
type bounded conn

var errHeaderTooLarge = errors.New("the answer's header is too large")

func (b *bounded) Read(p []byte) (int, error) {
	if b.allowed <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := b.Conn.Read(p[:min(len(p), b.allowed)])
	b.allowed -= n
	return n, err
}

// exchange sends a message and returns the answer up to its body. With an error, the connection is of no use.
func (c *conn) exchange(call call, message []byte) (*http.Response, error) {
	if err := c.watch(call); err != nil {
		return nil, err
	}
	trace := httptrace.ContextClientTrace(call.Context())
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c, Reused: c.reused})
	}
	_, err := c.Write(message)
	if trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
	if err != nil {
		return nil, err
	}
	return c.answer(call)
}

func (c *conn) answer(call call) (*http.Response, error) {
	for range maxInformational + 1 {
		c.allowed = maxResponseHeader
		res, err := http.ReadResponse(c.reader, call.Request)
		if err != nil {
			return nil, err
		}
		if res.StatusCode/100 != 1 || res.StatusCode == http.StatusSwitchingProtocols {
			c.allowed = math.MaxInt
			res.Body = &answerBody{
				ReadCloser: res.Body, conn: c, call: call, ended: res.Body == http.NoBody,
				last: res.Close || res.StatusCode == http.StatusSwitchingProtocols,
			}
			return res, nil
		}
	}
	return nil, errors.New("too many 1xx answers")
}

// discard closes the connection.
func (c *conn) discard() {
	c.unwatch()
	_ = c.Close() // whatever it says, nothing is left to do
}

// answerBody is an answer's body. Once it was read to its end, closing it keeps the connection.
type answerBody struct {
	io.ReadCloser
	conn  *conn
	call  call
	ended bool // read to its end
	last  bool // the connection serves no further exchange
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		b.ended = true
		return n, io.EOF
	default:
		return n, b.call.explain(err)
	}
}

func (b *answerBody) Close() error {
	c := b.conn
	if c == nil {
		return nil
	}
	b.conn = nil
	if !b.ended || b.last || c.reader.Buffered() > 0 || !c.rest(b.call) {
		c.discard()
		return nil
	}
	c.peers.keep(c)
	return nil
}
