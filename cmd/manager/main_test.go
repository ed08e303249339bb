// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nexus.io/webhooks/test/configdoc"
)

func environment(variables map[string]string) func(string) string {
	return func(name string) string { return variables[name] }
}

func TestAValueThatDoesNotParseStopsTheStartAndIsNamed(t *testing.T) {
	directory := t.TempDir()
	broken := filepath.Join(directory, "types.yaml")
	if err := os.WriteFile(broken, []byte("eventTypes: [{type: Not A Type}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(directory, "kubeconfig")
	text := "{clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], " +
		"contexts: [{name: a, context: {cluster: a}}], current-context: a}"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		args      []string
		variables map[string]string
		want      []string
	}{
		"a port that is none": {
			[]string{"--metrics-bind-address=:80800"}, nil, []string{"--metrics-bind-address", ":80800", "host:port"},
		},
		"an address without a port": {
			nil, map[string]string{"WEBHOOK_MANAGER_HEALTH_PROBE_BIND_ADDRESS": "localhost"},
			[]string{"WEBHOOK_MANAGER_HEALTH_PROBE_BIND_ADDRESS", "localhost", "host:port"},
		},
		"a switch that is neither on nor off": {
			[]string{"--leader-elect=maybe"}, nil, []string{"--leader-elect", "maybe", "true or false"},
		},
		"a level that is none": {
			nil, map[string]string{"WEBHOOK_LOG_LEVEL": "loud"}, []string{"WEBHOOK_LOG_LEVEL", "loud", "info, debug"},
		},
		"a flag that is none": {[]string{"--metrics"}, nil, []string{"--metrics"}},
		"an argument":         {[]string{"serve"}, nil, []string{"serve"}},
		"a kubeconfig that is not there": {
			[]string{"--kubeconfig=" + filepath.Join(directory, "none")}, nil, []string{"--kubeconfig", "none"},
		},
		"event types that are not there": {
			[]string{"--kubeconfig=" + kubeconfig, "--event-types-file=" + filepath.Join(directory, "none")}, nil,
			[]string{"--event-types-file", "none"},
		},
		"event types that are none": {
			[]string{"--kubeconfig=" + kubeconfig}, map[string]string{"WEBHOOK_EVENT_TYPES_FILE": broken},
			[]string{"--event-types-file", "Not A Type"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), c.args, environment(c.variables), io.Discard, io.Discard)
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestSettingsAreDocumented(t *testing.T) {
	configdoc.Check(t, "manager", (&options{}).settings())
}

func TestHelpNamesEverySetting(t *testing.T) {
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, environment(nil), &help, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"--kubeconfig", "--leader-elect", "--leader-elect-namespace", "--event-types-file", "--metrics-bind-address",
		"--health-probe-bind-address", "--log-level", "--log-format", "WEBHOOK_EVENT_TYPES_FILE", "(default :8080)",
	} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("--help does not mention %s:\n%s", want, help.String())
		}
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--version"}, environment(nil), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "manager " + version + "\n"; out.String() != want {
		t.Errorf("--version prints %q, want %q", out.String(), want)
	}
}

func TestAddresses(t *testing.T) {
	cases := map[string]bool{
		"0": true, ":0": true, ":8080": true, "127.0.0.1:8080": true, "[::1]:65535": true, "localhost:1": true,
		"": false, "8080": false, ":": false, ":65536": false, ":-1": false, "::1:8080": false, ":http": false,
	}
	for address, fine := range cases {
		if err := checkAddress(address); (err == nil) != fine {
			t.Errorf("checkAddress(%q) = %v", address, err)
		}
	}
}
