// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// publisher posts events over one kept connection and does no more than that takes, so that the load costs little of
// the machine that is measured.
type publisher struct {
	host   string
	conn   net.Conn
	reader *bufio.Reader
	out    []byte
}

func dial(ctx context.Context, url string) (*publisher, error) {
	host := strings.TrimPrefix(url, "http://")
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("connect a publisher: %w", err)
	}
	return &publisher{host: host, conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (p *publisher) close() { _ = p.conn.Close() }

// publish returns once the event was accepted.
func (p *publisher) publish(event string) error {
	p.out = append(p.out[:0], "POST /api/v1/events HTTP/1.1\r\nHost: "...)
	p.out = append(p.out, p.host...)
	p.out = append(p.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	p.out = strconv.AppendInt(p.out, int64(len(event)), 10)
	p.out = append(p.out, "\r\n\r\n"...)
	p.out = append(p.out, event...)
	if _, err := p.conn.Write(p.out); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return p.readAnswer()
}

var contentLength = []byte("content-length:")

func (p *publisher) readAnswer() error {
	status, err := p.line()
	if err != nil {
		return err
	}
	accepted := bytes.HasPrefix(status, []byte("HTTP/1.1 202"))
	first, length := string(status), 0
	for {
		line, err := p.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		if len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return fmt.Errorf("publish: answer's length: %w", err)
			}
		}
	}
	if !accepted {
		body, _ := p.reader.Peek(min(length, p.reader.Buffered()))
		return fmt.Errorf("publish: %s %s", first, body)
	}
	if _, err := p.reader.Discard(length); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// line is the next line without its end; it is valid until the next read.
func (p *publisher) line() ([]byte, error) {
	line, err := p.reader.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
