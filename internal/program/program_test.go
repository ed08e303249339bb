// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package program_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"nexus.io/webhooks/internal/program"
)

func TestLoggerObeysLevelAndFormatAndTakesWhatLibrariesLog(t *testing.T) {
	for _, level := range program.Levels {
		var out bytes.Buffer
		log := program.NewLogger(&out, level, "json")
		log.Debug("Line of debug")
		log.Info("Line of info", "someKey", "some value")
		log.Warn("Line of warn")
		log.Error("Line of error")
		klog.ErrorS(nil, "library line")
		for _, other := range program.Levels {
			rank := map[string]int{"debug": 0, "info": 1, "warn": 2, "error": 3}
			if got := strings.Contains(out.String(), "Line of "+other); got != (rank[other] >= rank[level]) {
				t.Errorf("level %s: a line of level %s is there: %v", level, other, got)
			}
		}
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %s", line)
			}
		}
		if !strings.Contains(out.String(), "library line") {
			t.Errorf("level %s: the library's line is missing", level)
		}
	}
	var out bytes.Buffer
	program.NewLogger(&out, "info", "text").Info("A line", "someKey", 1)
	if !strings.Contains(out.String(), `msg="A line" someKey=1`) {
		t.Errorf("as text: %s", out.String())
	}
}

func TestKubeConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, server string) string {
		path := filepath.Join(dir, name)
		text := "{clusters: [{name: a, cluster: {server: '" + server + "'}}], " +
			"contexts: [{name: a, context: {cluster: a}}], current-context: a}"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	named, byVariable := write("named", "https://named:1"), write("variable", "https://variable:1")
	t.Setenv("KUBECONFIG", filepath.Join(dir, "missing")+string(filepath.ListSeparator)+byVariable)
	for path, want := range map[string]string{named: "https://named:1", "": "https://variable:1"} {
		config, err := program.KubeConfig(path, "agent/1")
		if err != nil || config.Host != want || config.UserAgent != "agent/1" || config.QPS >= 0 {
			t.Errorf("KubeConfig(%q): %+v, %v; want %s", path, config, err, want)
		}
	}
	if _, err := program.KubeConfig(filepath.Join(dir, "none"), ""); err == nil ||
		!strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("a missing file: %v", err)
	}
}
