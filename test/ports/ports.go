// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ports finds ports for servers that tests start as processes, and start again on the same port.
package ports

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports that the kernel does not give to outgoing connections (by default it begins at 32768): one of those would be
// taken now and then while its server is away.
const (
	first = 15_000
	last  = 32_000
	tries = 100
)

var (
	mu    sync.Mutex
	given = map[int]bool{}
)

// Free is a port of loopback that nobody listens on, and that was not given before.
func Free() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range tries {
		port := first + rand.IntN(last-first)
		if given[port] {
			continue
		}
		var config net.ListenConfig
		l, err := config.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		given[port] = true
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("let go of port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, errors.New("find a free port: all that were tried are taken")
}
