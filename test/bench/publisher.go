// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// publisher posts events over one kept connection and does no more than that takes, so that the load costs little of
// the machine that is measured.
type publisher struct {
	host   string
	token  string
	conn   net.Conn
	reader *bufio.Reader
	out    []byte
}

func dial(ctx context.Context, url, token string) (*publisher, error) {
	host := strings.TrimPrefix(url, "http://")
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("connect a publisher: %w", err)
	}
	return &publisher{host: host, token: token, conn: conn, reader: bufio.NewReader(conn)}, nil
}

func (p *publisher) close() { _ = p.conn.Close() }

// publish returns once an event, or a batch of them, was accepted.
func (p *publisher) publish(path, body string) error {
	p.out = append(append(p.out[:0], "POST "...), path...)
	p.out = append(append(p.out, " HTTP/1.1\r\nHost: "...), p.host...)
	p.out = append(append(p.out, "\r\nAuthorization: Bearer "...), p.token...)
	p.out = append(p.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	p.out = strconv.AppendInt(p.out, int64(len(body)), 10)
	p.out = append(p.out, "\r\n\r\n"...)
	p.out = append(p.out, body...)
	if _, err := p.conn.Write(p.out); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if path == batchPath {
		return p.readLargeAnswer()
	}
	return p.readAnswer()
}

// readLargeAnswer reads the answer to a batch, which comes in chunks.
func (p *publisher) readLargeAnswer() error {
	response, err := http.ReadResponse(p.reader, nil)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if response.StatusCode != http.StatusAccepted || bytes.Contains(body, []byte(`"error"`)) {
		return fmt.Errorf("publish: status %d: %.500s", response.StatusCode, body)
	}
	return nil
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
