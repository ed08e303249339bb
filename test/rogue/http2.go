// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rogue

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames that a flood sends at once, and how often.
const (
	floodFrames = 10
	floodEvery  = time.Millisecond
)

func overHTTP2(proper *tls.Config) map[string]behaviour {
	proper = proper.Clone()
	proper.NextProtos = []string{"h2"}
	speak := func(s func(*peer)) func(net.Conn) {
		return func(conn net.Conn) { speakHTTP2(conn, proper, s) }
	}
	say := func(reason string, s func(*peer)) behaviour { return behaviour{secure, reason, false, speak(s)} }
	hold := func(s func(*peer)) behaviour { return behaviour{secure, "timeout", true, speak(s)} }
	goAway := func(p *peer, last uint32) { p.check(p.WriteGoAway(last, http2.ErrCodeNo, nil)) }
	return map[string]behaviour{
		"http2-goaway-at-once": say("connection_reset", func(p *peer) { goAway(p, 0) }),
		"http2-goaway-storm":   say("connection_reset", func(p *peer) { p.flood(func() { goAway(p, 0) }) }),
		"http2-goaway-after-each": say("", func(p *peer) {
			p.headers("200", true)
			goAway(p, p.stream)
		}),
		"http2-enhance-calm": say("invalid_response", func(p *peer) {
			p.check(p.WriteGoAway(p.stream, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings")))
			p.end()
		}),
		"http2-reset": say("connection_reset", func(p *peer) { p.check(p.WriteRSTStream(p.stream, http2.ErrCodeInternal)) }),
		// Those that never end say that they take no further request, so that each meets the same.
		"http2-endless-headers": say("invalid_response", func(p *peer) {
			goAway(p, p.stream)
			p.check(p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: p.encode(":status", "200")}))
			p.flood(func() { p.check(p.WriteContinuation(p.stream, false, p.encode("x-y", "z"))) })
		}),
		"http2-endless-continue": say("connection_reset", func(p *peer) {
			goAway(p, p.stream)
			p.flood(func() { p.headers("100", false) })
		}),
		"http2-endless-body": say("", func(p *peer) {
			goAway(p, p.stream)
			p.headers("200", false)
			p.flood(func() { p.check(p.WriteData(p.stream, false, make([]byte, 1<<10))) })
		}),
		"http2-silence": hold(func(p *peer) { goAway(p, p.stream) }),
		"http2-pings": hold(func(p *peer) {
			goAway(p, p.stream)
			p.flood(func() { p.check(p.WritePing(false, [8]byte{})) })
		}),
		"http2-settings": hold(func(p *peer) {
			goAway(p, p.stream)
			p.flood(func() { p.check(p.WriteSettings()) })
		}),
	}
}

// peer is the server's side of an HTTP/2 connection, and a request that came over it.
type peer struct {
	*http2.Framer
	conn   *tls.Conn
	stream uint32
	ended  bool
}

// speakHTTP2 shakes hands, and has speak answer each request.
func speakHTTP2(conn net.Conn, config *tls.Config, speak func(*peer)) {
	encrypted := tls.Server(conn, config)
	if encrypted.Handshake() != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, encrypted, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	p := &peer{Framer: http2.NewFramer(encrypted, encrypted), conn: encrypted}
	p.check(p.WriteSettings())
	for !p.ended {
		frame, err := p.ReadFrame()
		if err != nil {
			return
		}
		if settings, is := frame.(*http2.SettingsFrame); is && !settings.IsAck() {
			p.check(p.WriteSettingsAck())
		}
		if data, is := frame.(*http2.DataFrame); is && data.StreamEnded() {
			p.stream = data.StreamID
			speak(p)
		}
	}
}

func (p *peer) check(err error) {
	if err != nil {
		p.end()
	}
}

func (p *peer) end() {
	p.ended = true
	_ = p.conn.Close()
}

// flood sends frames for as long as anybody takes them. It does so at a pace that leaves the processor to others.
func (p *peer) flood(frames func()) {
	tick := time.NewTicker(floodEvery)
	defer tick.Stop()
	for !p.ended {
		for range floodFrames {
			frames()
		}
		<-tick.C
	}
}

func (p *peer) headers(status string, last bool) {
	p.check(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: p.stream, BlockFragment: p.encode(":status", status), EndHeaders: true, EndStream: last,
	}))
}

func (*peer) encode(name, value string) []byte {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: name, Value: value}) // into memory
	return block.Bytes()
}
