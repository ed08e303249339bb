// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
)

// BenchmarkWrite measures how fast batches are stored, with a body of 1 KiB for every other delivery.
func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			url, err := server.Database(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			store, err := postgres.Open(postgres.Options{URL: url, RetentionDays: 7, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			if err := store.SetUp(b.Context()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				b.StopTimer()
				batch := busyBatch(n)
				b.StartTimer()
				if written, err := store.Write(b.Context(), batch); err != nil || written.Stored != n {
					b.Fatalf("%+v, %v", written, err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func busyBatch(n int) history.Batch {
	batch := history.Batch{Records: records(n, time.Now()), Bodies: map[history.BodyRef][]byte{}}
	var ref history.BodyRef
	for i := range batch.Records {
		r := &batch.Records[i]
		r.SubscriptionID, r.EventID = fmt.Sprintf("sub_%012d", i%300), "evt_"+idAt(time.Now())
		r.Attempts[0].RequestHeaders = map[string]string{
			"X-Nexus-Signature-256": "sha256=" + idAt(time.Now()) + idAt(time.Now()), "X-Nexus-Delivery": r.ID,
			"X-Nexus-Event": r.EventType, "X-Nexus-Timestamp": "2026-01-01T00:00:00Z", "Content-Type": "application/json",
		}
		if i%2 == 0 {
			body := fmt.Appendf(nil, "%1024s", r.ID)
			ref = history.RefOf(body)
			batch.Bodies[ref] = body
		}
		r.Body = ref
	}
	return batch
}
