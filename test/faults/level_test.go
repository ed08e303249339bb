// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
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
		r.get(d.MetricsURL + "/debug/pprof/heap?gc=1")
		text := r.get(d.MetricsURL + "/metrics")
		const mebi = 1 << 20
		all = append(all, level{
			goroutines: r.metric(text, "go_goroutines"), files: r.metric(text, "process_open_fds"),
			heap:     r.metric(text, "go_memstats_heap_alloc_bytes") / mebi,
			resident: r.metric(text, "process_resident_memory_bytes") / mebi,
		})
	}
	return all
}

// metric is the sum of a metric over its labels.
func (r *trial) metric(text, name string) (sum float64) {
	r.Helper()
	found := regexp.MustCompile(`(?m)^`+name+`(?:\{.*\})? (\S+)$`).FindAllStringSubmatch(text, -1)
	if found == nil {
		r.Fatalf("there is no metric %s", name)
	}
	for _, line := range found {
		value, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			r.Fatal(err)
		}
		sum += value
	}
	return sum
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
