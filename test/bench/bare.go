// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"nexus.io/webhooks/internal/signing"
)

const connections = 64

// bare is the bar: net/http's client on 64 connections, posting the same signed body as a dispatcher to the same
// receiver.
// Arguments: URL, count.
func bare(ctx context.Context, args []string) error {
	url := args[0]
	count, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("bare: count: %w", err)
	}
	now := time.Now()
	body, err := single.body(now)
	if err != nil {
		return err
	}
	timestamp := now.UTC().Format(time.RFC3339)
	signature := signing.Sign([]byte("a secret of some length for bench"), timestamp, body)
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns: connections, MaxIdleConnsPerHost: connections, DisableCompression: true,
	}}
	var left atomic.Int64
	left.Store(count)
	var group sync.WaitGroup
	var failed atomic.Value
	for range connections {
		group.Go(func() {
			for left.Add(-1) >= 0 && failed.Load() == nil {
				if err := post(ctx, client, url, body, timestamp, signature); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	group.Wait()
	if err, _ := failed.Load().(error); err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	return nil
}

func post(ctx context.Context, client *http.Client, url string, body []byte, timestamp, signature string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	h := request.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "Nexus-Webhook/bare")
	h.Set("X-Nexus-Event", "build.completed")
	h.Set("X-Nexus-Delivery", "0191f3a2-0000-7000-8000-000000000000")
	h.Set("X-Nexus-Timestamp", timestamp)
	h.Set("X-Nexus-Signature-256", signature)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}
