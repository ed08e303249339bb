// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package egress

import (
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"nexus.io/webhooks/test/rogue"
)

// An HTTP/2 endpoint that ends each connection before it answers is not connected to over and over, and one that ends
// each behind its answer is.
func TestAnHTTP2EndpointThatEndsEachConnectionIsGivenUp(t *testing.T) {
	endpoints, bundle := rogue.Start(t)
	pem, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Policy: Policy{AllowedNetworks: networks(t, "127.0.0.0/8")}, RootCAs: x509.NewCertPool()}
	o.RootCAs.AppendCertsFromPEM(pem)
	transport := startTransport(t, o)
	find := func(name string) *rogue.Endpoint {
		return endpoints[slices.IndexFunc(endpoints, func(e *rogue.Endpoint) bool { return e.Name == name })]
	}
	for _, name := range []string{"http2-goaway-at-once", "http2-goaway-storm"} {
		e := find(name)
		if _, err := send(t, transport, e.URL); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		const first = 1 // by which it turned out that it speaks HTTP/2
		if n := e.Requests(); n > first+maxDials {
			t.Errorf("%s: %d connections were opened for one request", name, n)
		}
	}
	last := find("http2-goaway-after-each")
	for range 2 * maxDials {
		if _, err := send(t, transport, last.URL); err != nil {
			t.Errorf("an endpoint that ends each connection after its answer: %v", err)
		}
	}
}
