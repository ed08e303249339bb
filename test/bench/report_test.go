// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompare(t *testing.T) {
	before := baseline{"rate": {1, bigger}, "CPU": {2, smaller}, "p99": {1, smaller}}
	rate := func(value float64) line { return line{name: "rate", value: value, better: bigger, compared: true} }
	cpu := func(value float64) line { return line{name: "CPU", value: value, better: smaller, compared: true} }
	p99 := func(value float64) line {
		return line{name: "p99", value: value, bar: 2, better: smaller, compared: true, noisy: true}
	}
	tests := map[string]struct {
		before   baseline
		measured []line
		subset   bool
		want     []string // what the error says, a part of each of its lines; none: no error
	}{
		"the same ratios":                          {before, []line{rate(1), cpu(2), p99(1)}, false, nil},
		"within 15 % worse":                        {before, []line{rate(0.86), cpu(2.29), p99(1)}, false, nil},
		"better by any amount":                     {before, []line{rate(9), cpu(0.1), p99(0.1)}, false, nil},
		"a rate that fell":                         {before, []line{rate(0.84), cpu(2), p99(1)}, false, []string{"rate: 0.84, was 1"}},
		"a cost that rose":                         {before, []line{rate(1), cpu(2.31), p99(1)}, false, []string{"CPU: 2.31, was 2"}},
		"both":                                     {before, []line{rate(0.8), cpu(2.4), p99(1)}, false, []string{"rate: 0.8", "CPU: 2.4"}},
		"a noisy ratio that rose below its bar":    {before, []line{rate(1), cpu(2), p99(1.9)}, false, nil},
		"a noisy ratio that rose above its bar":    {before, []line{rate(1), cpu(2), p99(2.1)}, false, []string{"p99: 2.1, was 1, and the bar is 2"}},
		"a noisy ratio above its bar as before":    {baseline{"p99": {3, smaller}}, []line{p99(2.9)}, false, nil},
		"a ratio that the baseline lacks":          {baseline{"rate": {1, bigger}}, []line{rate(1), cpu(2)}, false, []string{"CPU: not in the baseline: save a new one with --save"}},
		"a ratio that a full run lacks":            {before, []line{rate(1), p99(1)}, false, []string{"CPU: in the baseline, but not measured"}},
		"a ratio whose direction changed":          {baseline{"CPU": {2, bigger}}, []line{cpu(2)}, false, []string{"CPU: smaller is better"}},
		"a part of the run":                        {before, []line{rate(1)}, true, nil},
		"a part of the run that is worse":          {before, []line{rate(0.5)}, true, []string{"rate: 0.5, was 1"}},
		"a part of the run with a new ratio":       {baseline{"rate": {1, bigger}}, []line{rate(1), cpu(2)}, true, nil},
		"a part of the run with none of the names": {baseline{"rate": {1, bigger}}, []line{cpu(2)}, true, []string{"no ratio of this run"}},
		"a part of the run without ratios":         {before, nil, true, []string{"no ratio of this run"}},
		"an empty baseline":                        {nil, []line{rate(1)}, false, []string{"rate: not in the baseline"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			if err := compare(test.before, test.measured, !test.subset); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(want, got string) bool {
				return strings.Contains(got, want) || strings.Contains(want, got)
			})); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRatiosAreWhatABaselineCanHold(t *testing.T) {
	b := &bench{}
	zero := 0.0
	b.atLeast("rate", 1, 1, "")
	b.atLeast("of nothing", 1/zero, 1, "")
	b.atMost("milliseconds", 1, 1)
	b.ratioAtMost("CPU", 2, 1, "")
	b.noisyAtMost("p99", 3, 1, "")
	b.noisyAtMost("nothing of nothing", zero/zero, 1, "")
	var got []string
	for _, l := range ratios(b.lines) {
		got = append(got, l.name)
	}
	if diff := cmp.Diff([]string{"rate", "CPU", "p99"}, got); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}

func TestGuardSavesWhatItComparesWith(t *testing.T) {
	b := &bench{options: options{save: filepath.Join(t.TempDir(), "base.json")}}
	b.atLeast("rate", 1, 1, "")
	b.ratioAtMost("CPU", 2, 3, "")
	if err := b.guard(nil); err != nil {
		t.Fatal(err)
	}
	got, err := readBaseline(b.save)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(baseline{"rate": {1, bigger}, "CPU": {2, smaller}}, got); diff != "" {
		t.Errorf("baseline (-want +got):\n%s", diff)
	}
}

func TestABaselineThatCannotBeReadFailsBeforeTheRun(t *testing.T) {
	tests := map[string]string{
		"no file":               "",
		"no JSON":               "{",
		"without directions":    `{"rate": 1}`,
		"an unknown direction":  `{"rate": {"value": 1, "better": "faster"}}`,
		"a value of text":       `{"rate": {"value": "1", "better": "bigger"}}`,
		"something behind JSON": `{"rate": {"value": 1, "better": "bigger"}} {}`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "base.json")
			if text != "" {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := drive(t.Context(), options{compareTo: file}); err == nil || !strings.Contains(err.Error(), "--compare: ") {
				t.Errorf("error %v, want one of --compare", err)
			}
		})
	}
}

func TestTheBaselineInTheTreeCanBeRead(t *testing.T) {
	if b, err := readBaseline("baseline.json"); err != nil || len(b) == 0 {
		t.Errorf("%d ratios, error %v", len(b), err)
	}
}
