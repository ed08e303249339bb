// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/settings"
)

// parse reads settings, with an address that needs no second word.
func parse(variables map[string]string, args ...string) (dispatcher.Options, error) {
	var o dispatcher.Options
	s := settings.New("dispatcher", "")
	o.Bind(s)
	args = append([]string{"--listen-address=127.0.0.1:0"}, args...)
	return o, s.Parse(args, func(name string) string { return variables[name] }, io.Discard)
}

// The variables that users know, their defaults, and the flags of the same meaning.
func TestDocumentedSettings(t *testing.T) {
	cases := map[string]struct {
		flag, value string
		read        func(dispatcher.Options) any
		byDefault   any
		want        any
	}{
		"REDIS_URL": {"redis-url", "redis://other:1", func(o dispatcher.Options) any { return o.RedisURL },
			"redis://localhost:6379", "redis://other:1"},
		"POSTGRES_URL": {"postgres-url", "postgresql://x", func(o dispatcher.Options) any { return o.PostgresURL },
			"", "postgresql://x"},
		"WEBHOOK_HISTORY_RETENTION_DAYS": {"history-retention-days", "90", func(o dispatcher.Options) any { return o.HistoryRetentionDays },
			30, 90},
		"WEBHOOK_HISTORY_OUTBOX_MEBIBYTES": {"history-outbox-mebibytes", "64", func(o dispatcher.Options) any { return o.HistoryOutboxMebibytes },
			512, 64},
		"WEBHOOK_MAX_RETRIES": {"max-retries", "0", func(o dispatcher.Options) any { return o.Defaults.Retry.MaxRetries }, 5, 0},
		"WEBHOOK_INITIAL_DELAY": {"initial-delay", "7", func(o dispatcher.Options) any { return o.Defaults.Retry.InitialDelay },
			5 * time.Second, 7 * time.Second},
		"WEBHOOK_MAX_DELAY": {"max-delay", "60", func(o dispatcher.Options) any { return o.Defaults.Retry.MaxDelay },
			time.Hour, time.Minute},
		"WEBHOOK_RATE_LIMIT": {"rate-limit", "1000000", func(o dispatcher.Options) any { return o.Defaults.RatePerMinute }, 60, 1_000_000},
		"WEBHOOK_TIMEOUT": {"timeout", "10", func(o dispatcher.Options) any { return o.Defaults.Timeout },
			30 * time.Second, 10 * time.Second},
	}
	for variable, tc := range cases {
		t.Run(variable, func(t *testing.T) {
			if o, err := parse(nil); err != nil || tc.read(o) != tc.byDefault {
				t.Errorf("by default: %v, %v; want %v", tc.read(o), err, tc.byDefault)
			}
			if o, err := parse(map[string]string{variable: tc.value}); err != nil || tc.read(o) != tc.want {
				t.Errorf("by variable: %v, %v; want %v", tc.read(o), err, tc.want)
			}
			o, err := parse(map[string]string{variable: "of no use"}, "--"+tc.flag+"="+tc.value)
			if err != nil || tc.read(o) != tc.want {
				t.Errorf("by flag: %v, %v; want %v", tc.read(o), err, tc.want)
			}
		})
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	cases := map[string]struct {
		variables map[string]string
		args      []string
		want      []string
	}{
		"Redis without a scheme": {map[string]string{"REDIS_URL": "localhost:6379"}, nil, []string{"REDIS_URL", "redis://"}},
		"PostgreSQL elsewhere":   {map[string]string{"POSTGRES_URL": "mysql://x"}, nil, []string{"POSTGRES_URL", "postgres://"}},
		"days beyond all bounds": {nil, []string{"--history-retention-days=401"}, []string{"--history-retention-days", "400"}},
		"a network":              {nil, []string{"--egress-allow-networks=10.0.0.0/8,loopback"}, []string{"--egress-allow-networks", "loopback"}},
		"a network that is never allowed": {map[string]string{"WEBHOOK_EGRESS_ALLOW_NETWORKS": "169.254.0.0/16"}, nil,
			[]string{"WEBHOOK_EGRESS_ALLOW_NETWORKS", "169.254.0.0/16"}},
		"an authentication":        {nil, []string{"--auth=token"}, []string{"--auth", "none"}},
		"an audience that is none": {nil, []string{"--auth-audience="}, []string{"--auth-audience", "not empty"}},
		"answers that count for long": {map[string]string{"WEBHOOK_AUTH_CACHE": "3600"}, nil,
			[]string{"WEBHOOK_AUTH_CACHE", "3600", "60"}},
		"a namespace that is none": {nil, []string{"--watch-namespaces=team-a,Team_B"},
			[]string{"--watch-namespaces", "Team_B", "team-a,team-b"}},
		"delays that contradict each other": {map[string]string{"WEBHOOK_MAX_DELAY": "4"}, nil,
			[]string{"WEBHOOK_MAX_DELAY", "WEBHOOK_INITIAL_DELAY", "4s", "5s"}},
		"several, of each kind": {
			map[string]string{"WEBHOOK_MAX_RETRIES": "-1", "WEBHOOK_TIMEOUT": "fast", "REDIS_URL": "http://x", "WEBHOOK_PROFILING": "si"},
			[]string{"--log-level=loud", "--metrics-address=8088"},
			[]string{"WEBHOOK_MAX_RETRIES", "WEBHOOK_TIMEOUT", "REDIS_URL", "WEBHOOK_PROFILING", "--log-level", "--metrics-address"},
		},
		"several together": {map[string]string{"WEBHOOK_MAX_DELAY": "1"}, []string{"--listen-address=:8087"},
			[]string{"WEBHOOK_MAX_DELAY", "--auth=none"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.variables, tc.args...)
			if err == nil || !containsAll(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestWithoutAuthenticationOnlyLoopbackIsServed(t *testing.T) {
	for address, fine := range map[string]bool{
		"127.0.0.1:8087": true, "127.9.9.9:0": true, "[::1]:8087": true, "localhost:8087": true,
		":8087": false, "0.0.0.0:8087": false, "[::]:8087": false, "10.0.0.1:8087": false, "webhooks:8087": false,
		"127.0.0.1.example:8087": false, "[::ffff:10.0.0.1]:8087": false,
	} {
		_, err := parse(nil, "--listen-address="+address)
		if (err == nil) != fine || err != nil && !strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := parse(nil, "--auth=kubernetes", "--listen-address="+address); err != nil {
			t.Errorf("%s, with authentication: %v", address, err)
		}
		if _, err := parse(nil, "--auth-none-on-any-address", "--listen-address="+address); err != nil {
			t.Errorf("%s, told twice: %v", address, err)
		}
		if _, err := parse(map[string]string{"WEBHOOK_AUTH_NONE_ON_ANY_ADDRESS": "true"}, "--listen-address="+address); err != nil {
			t.Errorf("%s, told twice by the variable: %v", address, err)
		}
	}
}
