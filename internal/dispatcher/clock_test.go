// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestAClockThatIsOffIsTold(t *testing.T) {
	here := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	cases := map[string]struct {
		ahead, took time.Duration
		err         error
		skew        float64
		told        bool
	}{
		"exact":                       {},
		"a little off":                {ahead: 9 * time.Second, skew: 9},
		"ahead":                       {ahead: 5 * time.Minute, skew: 300, told: true},
		"behind":                      {ahead: -5 * time.Minute, skew: -300, told: true},
		"half of the way is deducted": {ahead: time.Minute, took: time.Second, skew: 60, told: true},
		"too slow an answer":          {ahead: time.Minute, took: 2 * time.Second},
		"no answer":                   {ahead: time.Minute, err: errors.New("away")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			registry := prometheus.NewRegistry()
			now := here.Add(c.ahead)
			clock := newClock(func(context.Context) (time.Time, error) {
				now = now.Add(c.took)
				return here.Add(c.took / 2), c.err
			}, registry, slog.New(slog.NewTextHandler(&out, nil)))
			clock.now = func() time.Time { return now }
			clock.look(t.Context())
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			if skew := families[0].GetMetric()[0].GetGauge().GetValue(); skew != c.skew {
				t.Errorf("skew is %g, want %g", skew, c.skew)
			}
			if told := strings.Contains(out.String(), "differ"); told != c.told {
				t.Errorf("the log says %q", out.String())
			}
		})
	}
}

func TestAClockThatStaysOffIsToldOnceAndItsEndToo(t *testing.T) {
	var out bytes.Buffer
	there := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ahead := time.Minute
	clock := newClock(func(context.Context) (time.Time, error) { return there, nil }, prometheus.NewRegistry(),
		slog.New(slog.NewTextHandler(&out, nil)))
	clock.now = func() time.Time { return there.Add(ahead) }
	for range 5 {
		clock.look(t.Context())
	}
	ahead = 0
	clock.look(t.Context())
	clock.look(t.Context())
	if text := out.String(); strings.Count(text, "differ") != 1 || strings.Count(text, "agree again") != 1 {
		t.Errorf("the log says %q", text)
	}
}
