// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package settings_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/settings"
)

type program struct {
	retries int
	delay   time.Duration
	address string
	format  string
	debug   bool
	listen  string
}

func newSet() (*settings.Set, *program) {
	var p program
	s := settings.New("demo", "Demo shows settings.")
	s.Group("Sending")
	s.Int(&p.retries, "retries", "DEMO_RETRIES", 5, 0, 100, "Retries after the first attempt.")
	s.Seconds(&p.delay, "delay", "DEMO_DELAY", 5*time.Second, time.Second, time.Hour, "First delay.")
	s.Group("Process")
	s.Secret(&p.address, "redis-url", "REDIS_URL", "redis://localhost:6379", "`URL` of Redis.", checkURL)
	s.Choice(&p.format, "log-format", "DEMO_LOG_FORMAT", []string{"json", "text"}, "Form of the log.")
	s.Bool(&p.debug, "debug", "", false, "Say more.")
	s.String(&p.listen, "listen", "DEMO_LISTEN", "", "`HOST:PORT` to listen on.", settings.HostPort)
	s.Check(func() error {
		if p.retries == 13 {
			return errors.New("13 retries bring bad luck")
		}
		return nil
	})
	return s, &p
}

func checkURL(text string) error {
	if !strings.HasPrefix(text, "redis://") {
		return errors.New("the scheme is not redis")
	}
	return nil
}

func parse(t *testing.T, args []string, environment map[string]string) (program, error) {
	t.Helper()
	s, p := newSet()
	err := s.Parse(args, func(name string) string { return environment[name] }, &bytes.Buffer{})
	return *p, err
}

func TestParse(t *testing.T) {
	byDefault := program{5, 5 * time.Second, "redis://localhost:6379", "json", false, ""}
	cases := map[string]struct {
		args        []string
		environment map[string]string
		want        func(*program)
	}{
		"nothing given leaves the defaults":        {want: func(*program) {}},
		"a variable replaces the default":          {environment: map[string]string{"DEMO_RETRIES": "7"}, want: func(p *program) { p.retries = 7 }},
		"an empty variable counts as absent":       {environment: map[string]string{"DEMO_RETRIES": ""}, want: func(*program) {}},
		"a flag wins over its variable":            {[]string{"--retries=8"}, map[string]string{"DEMO_RETRIES": "7"}, func(p *program) { p.retries = 8 }},
		"a flag wins over a wrong variable":        {[]string{"--retries=8"}, map[string]string{"DEMO_RETRIES": "x"}, func(p *program) { p.retries = 8 }},
		"a plain number is in seconds":             {environment: map[string]string{"DEMO_DELAY": "90"}, want: func(p *program) { p.delay = 90 * time.Second }},
		"a time with units works":                  {environment: map[string]string{"DEMO_DELAY": "1m30s"}, want: func(p *program) { p.delay = 90 * time.Second }},
		"a switch needs no value":                  {args: []string{"--debug"}, want: func(p *program) { p.debug = true }},
		"a choice takes each of its words":         {args: []string{"--log-format", "text"}, want: func(p *program) { p.format = "text" }},
		"bounds belong to what is allowed":         {args: []string{"--retries=100", "--delay=1"}, want: func(p *program) { p.retries, p.delay = 100, time.Second }},
		"space around a variable is no part of it": {environment: map[string]string{"DEMO_RETRIES": " 7\n"}, want: func(p *program) { p.retries = 7 }},
		"a fraction of seconds works":              {args: []string{"--delay=1.5"}, want: func(p *program) { p.delay = 1500 * time.Millisecond }},
		"an address of one interface":              {args: []string{"--listen=[::1]:0"}, want: func(p *program) { p.listen = "[::1]:0" }},
		"a flag's value may follow after a space":  {args: []string{"--retries", "3"}, want: func(p *program) { p.retries = 3 }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			want := byDefault
			tc.want(&want)
			if got, err := parse(t, tc.args, tc.environment); err != nil || got != want {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	cases := map[string]struct {
		args        []string
		environment map[string]string
		want        []string
	}{
		"a variable that is no number": {nil, map[string]string{"DEMO_RETRIES": "many"},
			[]string{"DEMO_RETRIES", `"many"`, "whole number from 0 to 100"}},
		"a flag out of bounds":            {[]string{"--retries=101"}, nil, []string{"--retries", `"101"`, "from 0 to 100"}},
		"seconds out of bounds":           {nil, map[string]string{"DEMO_DELAY": "0"}, []string{"DEMO_DELAY", "from 1 to 3600"}},
		"an unknown word":                 {[]string{"--log-format=xml"}, nil, []string{"--log-format", "json, text"}},
		"an unknown flag":                 {[]string{"--retrys=1"}, nil, []string{"retrys", "--help"}},
		"an argument that is no flag":     {[]string{"serve"}, nil, []string{"serve", "flags only"}},
		"a switch with a strange value":   {[]string{"--debug=perhaps"}, nil, []string{"--debug", "true or false"}},
		"seconds that are no number":      {[]string{"--delay=NaN"}, nil, []string{"--delay", "from 1 to 3600"}},
		"seconds without end":             {[]string{"--delay=1e300"}, nil, []string{"--delay", "from 1 to 3600"}},
		"an address without a port":       {[]string{"--listen=localhost"}, nil, []string{"--listen", "localhost", "host:port"}},
		"a port that is none":             {[]string{"--listen=:65536"}, nil, []string{"--listen", ":65536", "0 to 65535"}},
		"a port by name":                  {[]string{"--listen=:http"}, nil, []string{"--listen", ":http", "host:port"}},
		"a flag without its value":        {[]string{"--retries"}, nil, []string{"--retries"}},
		"a secret":                        {nil, map[string]string{"REDIS_URL": "hunter2"}, []string{"REDIS_URL", "scheme"}},
		"values that do not fit together": {[]string{"--retries=13"}, nil, []string{"bad luck"}},
		"every mistake at once": {[]string{"--log-format=xml", "--debug=perhaps", "serve"}, map[string]string{"DEMO_RETRIES": "x", "DEMO_DELAY": "y"},
			[]string{"DEMO_RETRIES", "DEMO_DELAY", "--log-format", "--debug", "serve"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, tc.args, tc.environment)
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	for name, args := range map[string][]string{
		"a value that is refused":        {"--redis-url=http://:hunter2@host"},
		"an address without its flag":    {"redis://:hunter2@host"},
		"a flag that is misspelled":      {"--redis-ulr=redis://:hunter2@host"},
		"a misspelled one and its value": {"--redis-ulr", "redis://:hunter2@host"},
		"a flag with one dash":           {"-redis-url=redis://:hunter2@host"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, args, nil)
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error %v", err)
			}
		})
	}
	_, err := parse(t, nil, map[string]string{"REDIS_URL": "http://:hunter2@host"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("error %v", err)
	}
}

func TestVersionIsAllThatCountsWhereItIsAskedFor(t *testing.T) {
	s, _ := newSet()
	s.Version = "v1.2.3"
	var out bytes.Buffer
	err := s.Parse([]string{"--retries=many", "--version"}, func(string) string { return "nonsense" }, &out)
	if !errors.Is(err, settings.ErrVersion) || out.String() != "demo v1.2.3\n" {
		t.Errorf("got %v and %q", err, out.String())
	}
}

func TestHelp(t *testing.T) {
	s, _ := newSet()
	var out bytes.Buffer
	if err := s.Parse([]string{"--help"}, func(string) string { return "" }, &out); !errors.Is(err, settings.ErrHelp) {
		t.Fatalf("got %v, want ErrHelp", err)
	}
	want := `Demo shows settings.

Usage: demo [flags]

Each flag has the environment variable beside it; the flag wins over the variable. Seconds are plain
numbers (90) or have units (1m30s). --help prints this, --version the version.

Sending:
  --retries NUMBER                    DEMO_RETRIES
        Retries after the first attempt. From 0 to 100. (default 5)
  --delay SECONDS                     DEMO_DELAY
        First delay. From 1 to 3600. (default 5)

Process:
  --redis-url URL                     REDIS_URL
        URL of Redis. (default redis://localhost:6379)
  --log-format WORD                   DEMO_LOG_FORMAT
        Form of the log. One of: json, text. (default json)
  --debug
        Say more. (default false)
  --listen HOST:PORT                  DEMO_LISTEN
        HOST:PORT to listen on.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("help (-want +got):\n%s", diff)
	}
}

func TestHelpWraps(t *testing.T) {
	s, p := settings.New("demo", strings.Repeat("purpose ", 30)), ""
	s.Group("Long")
	s.String(&p, "long", "", "", strings.Repeat("word ", 60)+strings.Repeat("x", 120), nil)
	var out bytes.Buffer
	_ = s.Parse([]string{"-h"}, func(string) string { return "" }, &out)
	for line := range strings.Lines(out.String()) {
		if len(line) > 101 && strings.Contains(strings.TrimSpace(line), " ") {
			t.Errorf("a line of %d columns: %s", len(line)-1, line)
		}
	}
}

func TestMarkdown(t *testing.T) {
	s, _ := newSet()
	var out bytes.Buffer
	s.Markdown(&out)
	for _, want := range []string{
		"\n### Sending\n\n| variable | flag | default | |\n",
		"| `DEMO_RETRIES` | `--retries` | `5` | Retries after the first attempt. From 0 to 100. |\n",
		"| none | `--debug` | `false` | Say more. |\n",
		"| `DEMO_LISTEN` | `--listen` |  | HOST:PORT to listen on. |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %q:\n%s", want, out.String())
		}
	}
}
