// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// mostWorse is by how much of itself a ratio may be worse than the baseline's.
const mostWorse = 0.15

// Which way a ratio gets better.
const (
	bigger  = "bigger"
	smaller = "smaller"
)

// line is a figure with its bar.
type line struct {
	name, detail string
	value, bar   float64
	better       string
	compared     bool // with the baseline
	noisy        bool // compared only where the bar is missed
}

func (l line) reached() bool {
	if l.better == bigger {
		return l.value >= l.bar
	}
	return l.value <= l.bar
}

// atLeast adds a ratio that is held to a least.
func (b *bench) atLeast(name string, value, bar float64, detail string) {
	b.lines = append(b.lines, line{
		name: name, detail: detail, value: value, bar: bar, better: bigger, compared: true,
	})
}

// atMost adds a figure that depends on the machine, so that no baseline tells anything of it.
func (b *bench) atMost(name string, value, bar float64) {
	b.lines = append(b.lines, line{name: name, value: value, bar: bar, better: smaller})
}

// ratioAtMost adds a ratio that is held to a most, or a count that is the same on every machine.
func (b *bench) ratioAtMost(name string, value, bar float64, detail string) {
	b.lines = append(b.lines, line{
		name: name, detail: detail, value: value, bar: bar, better: smaller, compared: true,
	})
}

// noisyAtMost adds a ratio that differs by more than mostWorse between two runs of one version.
func (b *bench) noisyAtMost(name string, value, bar float64, detail string) {
	b.lines = append(b.lines, line{
		name: name, detail: detail, value: value, bar: bar, better: smaller, compared: true, noisy: true,
	})
}

func (b *bench) report() {
	if len(b.lines) == 0 {
		return
	}
	width := 0
	for _, l := range b.lines {
		width = max(width, len(l.name))
	}
	fmt.Printf("\n%-*s %10s %10s\n", width, "", "measured", "bar")
	for _, l := range b.lines {
		mark, sign := "reached", "≤"
		if !l.reached() {
			mark = "MISSED"
		}
		if l.better == bigger {
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

// ratio is a figure of a baseline: a ratio to what ran right beside it.
type ratio struct {
	Value  float64 `json:"value"`
	Better string  `json:"better"` // bigger or smaller
}

// baseline is the ratios of a run by their names.
type baseline map[string]ratio

func readBaseline(file string) (baseline, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var b baseline
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for name, r := range b {
		if r.Better != bigger && r.Better != smaller {
			return nil, fmt.Errorf("%s: %s: better is %q, not %s or %s", file, name, r.Better, bigger, smaller)
		}
	}
	return b, nil
}

func (b baseline) write(file string) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o600)
}

// ratios are the lines that are compared, but for those that came to no number.
func ratios(lines []line) []line {
	return slices.DeleteFunc(slices.Clone(lines), func(l line) bool {
		return !l.compared || math.IsInf(l.value, 0) || math.IsNaN(l.value)
	})
}

// guard compares the ratios of this run with those of an earlier one, and writes them to a file, where flags say so.
func (b *bench) guard(before baseline) error {
	measured := ratios(b.lines)
	var trouble error
	if b.compareTo != "" {
		if err := compare(before, measured, b.only == ""); err != nil {
			trouble = fmt.Errorf("--compare %s:\n%w", b.compareTo, err)
		}
	}
	if b.save == "" {
		return trouble
	}
	saved := baseline{}
	for _, l := range measured {
		saved[l.name] = ratio{Value: l.value, Better: l.better}
	}
	return errors.Join(trouble, saved.write(b.save))
}

// compare tells which ratios are worse than the baseline's. A full run must have the same ratios as the baseline, so
// that none is dropped or renamed unnoticed; another one must have at least one of them.
func compare(before baseline, measured []line, full bool) error {
	var trouble []error
	missing := maps.Clone(before)
	for _, l := range measured {
		was, known := before[l.name]
		delete(missing, l.name)
		switch {
		case known:
			trouble = append(trouble, l.worse(was))
		case full:
			trouble = append(trouble, fmt.Errorf("%s: not in the baseline: save a new one with --save", l.name))
		}
	}
	if full {
		for _, name := range slices.Sorted(maps.Keys(missing)) {
			trouble = append(trouble, fmt.Errorf("%s: in the baseline, but not measured", name))
		}
	} else if len(missing) == len(before) {
		return errors.New("no ratio of this run is in the baseline")
	}
	return errors.Join(trouble...)
}

// worse is an error where a ratio is worse than it was by more than it may be.
func (l line) worse(was ratio) error {
	switch {
	case l.better != was.Better:
		return fmt.Errorf("%s: %s is better, but in the baseline %s: save a new one with --save",
			l.name, l.better, was.Better)
	case l.noisy && (l.reached() || l.value <= was.Value):
		return nil
	case l.noisy:
		return fmt.Errorf("%s: %s, was %s, and the bar is %s", l.name, short(l.value), short(was.Value), short(l.bar))
	case l.better == bigger && l.value < was.Value*(1-mostWorse),
		l.better == smaller && l.value > was.Value*(1+mostWorse):
		return fmt.Errorf("%s: %s, was %s: worse by more than %.0f %%",
			l.name, short(l.value), short(was.Value), mostWorse*100)
	}
	return nil
}

// column is a stage in a table.
type column struct {
	name    string
	figures figures
}

func printTable(columns []column) {
	if len(columns) == 0 {
		return
	}
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
	row("peak memory of Redis, MiB", "%d", func(f figures) any { return f.redisPeak >> 20 })
}
