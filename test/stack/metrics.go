// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// observeTimeout bounds a look at a program that may be busy.
const observeTimeout = time.Minute

// Metrics are those of a program at one time.
type Metrics struct {
	Text     []byte
	families map[string]*dto.MetricFamily
}

// Metrics reads what the program counts.
func (p *Process) Metrics(ctx context.Context) (m Metrics, err error) {
	if m.Text, err = p.Observe(ctx, "/metrics"); err != nil {
		return m, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if m.families, err = parser.TextToMetricFamilies(bytes.NewReader(m.Text)); err != nil {
		return m, fmt.Errorf("read the metrics of %s: %w", p.Name, err)
	}
	return m, nil
}

// Sum of a counter or a gauge over its labels. An error says that there is none of this name.
func (m Metrics) Sum(name string) (sum float64, err error) {
	family := m.families[name]
	if family == nil {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	for _, metric := range family.GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum, nil
}

// Observe gets a path of the program's listener for operators.
func (p *Process) Observe(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	url := p.MetricsURL + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: status %d: %s", url, response.StatusCode, body)
	}
	return body, nil
}
