// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// An endpoint that takes a single request at a time on each HTTP/2 connection gets all, of which many find that another
// was faster to use the connection that they opened.
func TestAnHTTP2EndpointMayTakeOneRequestAConnection(t *testing.T) {
	const senders, each = 40, 25
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(10 * time.Millisecond) // so that all connections are busy at once
	}))
	server.EnableHTTP2 = true
	server.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
	server.StartTLS()
	t.Cleanup(server.Close)
	o := trusting(t, &endpoint{Server: server})
	o.MaxIdleConns = senders
	transport := startTransport(t, o)
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			for range each {
				if _, err := send(t, transport, server.URL); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}
