// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"nexus.io/webhooks/internal/signing"
)

const (
	receiverPath   = "/webhooks/nexus"
	maxReceived    = 2 << 20
	shownBody      = 240
	receiverLimit  = 10 * time.Second
	receivedBuffer = 16
)

// received is a delivery that arrived with a good signature.
type received struct{ event, delivery string }

// receiver stands for somebody's own service: it takes what is signed with the subscription's key, and nothing else.
type receiver struct {
	story *story
	// key returns the subscription's signing key, as the person who set the service up would have pasted it.
	key func(context.Context) ([]byte, error)
	url string
	// arrivals has the first deliveries, for whoever waits for them.
	arrivals chan received
}

// startReceiver listens on a free loopback port until s stops.
func startReceiver(ctx context.Context, s *supervisor, key func(context.Context) ([]byte, error)) (*receiver, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the demo receiver: %w", err)
	}
	r := &receiver{
		story: s.story, key: key, url: "http://" + listener.Addr().String() + receiverPath,
		arrivals: make(chan received, receivedBuffer),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+receiverPath, r.take)
	server := &http.Server{Handler: mux, ReadTimeout: receiverLimit, WriteTimeout: receiverLimit}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.story.tell("receiver", "%v", err)
		}
	}()
	s.stopped = append(s.stopped, func() {
		_ = server.Close() // nobody sends any more
		<-served
	})
	s.story.tell("receiver", "a demo receiver that verifies signatures listens at %s", r.url)
	return r, nil
}

func (r *receiver) take(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxReceived))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	key, err := r.key(request.Context())
	if err != nil {
		r.story.tell("receiver", "cannot verify: %v", err)
		http.Error(w, "the key cannot be read", http.StatusInternalServerError)
		return
	}
	header := request.Header
	arrival := received{event: header.Get("X-Nexus-Event"), delivery: header.Get("X-Nexus-Delivery")}
	if !signing.Verify(key, header.Get("X-Nexus-Timestamp"), body, header.Get("X-Nexus-Signature-256")) {
		r.story.tell("receiver", "refused %q, delivery %q: the signature is not by the subscription's key",
			arrival.event, arrival.delivery)
		http.Error(w, "the signature is wrong", http.StatusUnauthorized)
		return
	}
	r.story.tell("receiver", "took %s, delivery %s, signature verified: %s",
		arrival.event, arrival.delivery, shorten(body))
	select {
	case r.arrivals <- arrival:
	default: // nobody waits for more
	}
}

func shorten(body []byte) string {
	if len(body) <= shownBody {
		return string(body)
	}
	return string(body[:shownBody]) + fmt.Sprintf("… (%d bytes)", len(body))
}
