// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"io"
	"net/http"

	"nexus.io/webhooks/test/stack"
)

// level is what a dispatcher uses after it collected its garbage. It takes --profiling.
type level struct {
	goroutines, files float64
	heap, resident    float64 // MiB
}

func (l level) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f descriptors, heap %.0f MiB, RSS %.0f MiB", l.goroutines, l.files, l.heap,
		l.resident)
}

func (r *trial) levels() (all []level) {
	r.Helper()
	for _, d := range r.s.Dispatchers {
		_, err := d.Observe(r.Context(), "/debug/pprof/heap?gc=1")
		r.must(err)
		metric := r.metrics(d)
		const mebi = 1 << 20
		all = append(all, level{
			goroutines: metric("go_goroutines"), files: metric("process_open_fds"),
			heap:     metric("go_memstats_heap_alloc_bytes") / mebi,
			resident: metric("process_resident_memory_bytes") / mebi,
		})
	}
	return all
}

// metrics of a dispatcher. What is asked of them must be there.
func (r *trial) metrics(d *stack.Process) (sum func(name string) float64) {
	r.Helper()
	metrics, err := d.Metrics(r.Context())
	r.must(err)
	return func(name string) float64 {
		r.Helper()
		value, err := metrics.Sum(name)
		r.must(err)
		return value
	}
}

func (r *trial) get(url string) string {
	r.Helper()
	status, text, err := r.ask(url)
	if err != nil || status != http.StatusOK {
		r.Fatalf("%s: %d %s %v", url, status, text, err)
	}
	return text
}

func (r *trial) ask(url string) (status int, text string, err error) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := r.load.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}
