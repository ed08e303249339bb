// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

// mostDrop of a ratio from one run to another.
const mostDrop = 0.15

// line is a figure with its bar.
type line struct {
	name, detail string
	value, bar   float64
	reached      bool
	atLeast      bool // the bar is the least, not the most
}

func (b *bench) atLeast(name string, value, bar float64, detail string) {
	b.lines = append(b.lines, line{
		name: name, detail: detail, value: value, bar: bar, reached: value >= bar, atLeast: true,
	})
}

func (b *bench) atMost(name string, value, bar float64, detail string) {
	b.lines = append(b.lines, line{name: name, detail: detail, value: value, bar: bar, reached: value <= bar})
}

func (b *bench) report() {
	width := 0
	for _, l := range b.lines {
		width = max(width, len(l.name))
	}
	fmt.Printf("\n%-*s %10s %10s\n", width, "", "measured", "bar")
	for _, l := range b.lines {
		mark, sign := "reached", "≤"
		if !l.reached {
			mark = "MISSED"
		}
		if l.atLeast {
			sign = "≥"
		}
		fmt.Printf("%-*s %10s %10s  %-7s  %s\n", width, l.name, short(l.value), sign+" "+short(l.bar), mark, l.detail)
	}
}

func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}

// guard writes the ratios of this run to a file, and compares them with those of an earlier one. Only figures that are
// held to a least are compared: they are ratios to what ran right beside them.
func (b *bench) guard() error {
	ratios := map[string]float64{}
	for _, l := range b.lines {
		if l.atLeast && !math.IsInf(l.value, 0) && !math.IsNaN(l.value) {
			ratios[l.name] = l.value
		}
	}
	var trouble error
	if b.compareTo != "" {
		trouble = compare(b.compareTo, ratios)
	}
	if b.save == "" {
		return trouble
	}
	text, err := json.MarshalIndent(ratios, "", "  ")
	if err == nil {
		err = os.WriteFile(b.save, append(text, '\n'), 0o600)
	}
	return errors.Join(trouble, err)
}

func compare(file string, ratios map[string]float64) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--compare: %w", err)
	}
	var before map[string]float64
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("--compare: %s: %w", file, err)
	}
	for name, ratio := range ratios {
		was, known := before[name]
		if known && ratio < was*(1-mostDrop) {
			err = errors.Join(err, fmt.Errorf("%s: %s, was %s in %s", name, short(ratio), short(was), file))
		}
	}
	if err != nil {
		return fmt.Errorf("slower by more than %.0f %%:\n%w", mostDrop*100, err)
	}
	return nil
}

// column is a stage in a table.
type column struct {
	name    string
	figures figures
}

func printTable(columns []column) {
	fmt.Printf("\n%-32s", "")
	for _, c := range columns {
		fmt.Printf(" %16s", c.name)
	}
	fmt.Println()
	row := func(name, format string, value func(figures) any) {
		fmt.Printf("%-32s", name)
		for _, c := range columns {
			fmt.Printf(" %16s", fmt.Sprintf(format, value(c.figures)))
		}
		fmt.Println()
	}
	micros := func(d time.Duration, f figures) any { return float64(d.Microseconds()) / float64(f.deliveries) }
	row("deliveries", "%d", func(f figures) any { return f.deliveries })
	row("deliveries/s", "%.0f", func(f figures) any { return f.rate })
	row("CPU µs of each: sender", "%.0f", func(f figures) any { return micros(f.sender, f) })
	row("CPU µs of each: Redis", "%.0f", func(f figures) any { return micros(f.redis, f) })
	row("CPU µs of each: receiver", "%.0f", func(f figures) any { return micros(f.receiver, f) })
	row("scripts called for each", "%.3f", func(f figures) any { return f.scripts })
	row("Redis commands for each", "%.2f", func(f figures) any { return f.commands })
	row("peak memory of the sender, MiB", "%d", func(f figures) any { return f.peak >> 20 })
}
