// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const probeTimeout = 2 * time.Second

// answers returns a probe that wants status 200 from url.
func answers(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("probe %s: %w", url, err)
		}
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		defer func() { _ = response.Body.Close() }() // it was only read
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(io.LimitReader(response.Body, 512)) // as far as it goes, to quote it
			return fmt.Errorf("probe %s: %s: %s", url, response.Status, text)
		}
		return nil
	}
}

// accepts returns a probe that wants a TCP connection to address.
func accepts(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		dialer := net.Dialer{Timeout: probeTimeout}
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		return connection.Close()
	}
}
