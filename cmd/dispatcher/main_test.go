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

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/settings"
	"nexus.io/webhooks/test/configdoc"
)

func none(string) string { return "" }

func TestSettingsAreDocumented(t *testing.T) {
	var o dispatcher.Options
	s := settings.New("dispatcher", "")
	o.Bind(s)
	configdoc.Check(t, "dispatcher", s)
}

func TestHelpIsReadable(t *testing.T) {
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, none, &help, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage: dispatcher", "--redis-url URL", "REDIS_URL", "(default redis://localhost:6379)",
		"--listen-address HOST:PORT", "(default :8087)", "Defaults for what a subscription leaves out:"} {
		if !strings.Contains(help.String(), want) {
			t.Errorf("the help does not say %q:\n%s", want, help.String())
		}
	}
	for line := range strings.Lines(help.String()) {
		if len(line) > 101 {
			t.Errorf("a line of the help has %d columns: %s", len(line)-1, line)
		}
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--version"}, none, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if want := "dispatcher " + version + "\n"; out.String() != want {
		t.Errorf("--version prints %q, want %q", out.String(), want)
	}
}

func TestAStartThatCannotSucceedSaysWhy(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := "{clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}], " +
		"contexts: [{name: a, context: {cluster: a}}], current-context: a}"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loopback := "--listen-address=127.0.0.1:0"
	cases := map[string]struct {
		args []string
		want []string
	}{
		"a bad value":         {[]string{"--timeout=0", loopback}, []string{"settings", "--timeout", "from 1 to 300"}},
		"nobody is kept out":  {[]string{"--kubeconfig=" + kubeconfig}, []string{"settings", "--auth=none", ":8087"}},
		"no kubeconfig":       {[]string{"--kubeconfig=/none", loopback}, []string{"--kubeconfig", "/none"}},
		"no event types file": {[]string{"--kubeconfig=" + kubeconfig, "--event-types-file=/none", loopback}, []string{"--event-types-file", "/none"}},
		"an address of others": {[]string{"--kubeconfig=" + kubeconfig, loopback, "--metrics-address=192.0.2.1:1"},
			[]string{"--metrics-address", "192.0.2.1:1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), tc.args, none, io.Discard, io.Discard)
			if err == nil {
				t.Fatal("it ran")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}
