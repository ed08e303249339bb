package settings_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/internal/settings"
)

type program struct {
	retries int
	delay   time.Duration
	address string
	format  string
	debug   bool
}

func newSet() (*settings.Set, *program) {
	var p program
	s := settings.New("demo", "Demo shows settings.")
	s.Group("Sending")
	s.Int(&p.retries, "retries", "DEMO_RETRIES", 5, 0, 100, "Retries after the first attempt.")
	s.Seconds(&p.delay, "delay", "DEMO_DELAY", 5*time.Second, time.Second, time.Hour, "First delay.")
	s.Group("Process")
	s.Secret(&p.address, "redis-url", "REDIS_URL", "redis://localhost:6379", "Redis.")
	s.Choice(&p.format, "log-format", "DEMO_LOG_FORMAT", []string{"json", "text"}, "Form of the log.")
	s.Bool(&p.debug, "debug", "", false, "Say more.")
	return s, &p
}

func parse(t *testing.T, args []string, environment map[string]string) (program, error) {
	t.Helper()
	s, p := newSet()
	err := s.Parse(args, func(name string) string { return environment[name] }, &bytes.Buffer{})
	return *p, err
}

func TestParse(t *testing.T) {
	byDefault := program{5, 5 * time.Second, "redis://localhost:6379", "json", false}
	cases := map[string]struct {
		args        []string
		environment map[string]string
		want        func(*program)
	}{
		"nothing given leaves the defaults":       {want: func(*program) {}},
		"a variable replaces the default":         {environment: map[string]string{"DEMO_RETRIES": "7"}, want: func(p *program) { p.retries = 7 }},
		"an empty variable counts as absent":      {environment: map[string]string{"DEMO_RETRIES": ""}, want: func(*program) {}},
		"a flag wins over its variable":           {[]string{"--retries=8"}, map[string]string{"DEMO_RETRIES": "7"}, func(p *program) { p.retries = 8 }},
		"a flag wins over a wrong variable":       {[]string{"--retries=8"}, map[string]string{"DEMO_RETRIES": "x"}, func(p *program) { p.retries = 8 }},
		"a plain number is in seconds":            {environment: map[string]string{"DEMO_DELAY": "90"}, want: func(p *program) { p.delay = 90 * time.Second }},
		"a time with units works":                 {environment: map[string]string{"DEMO_DELAY": "1m30s"}, want: func(p *program) { p.delay = 90 * time.Second }},
		"a switch needs no value":                 {args: []string{"--debug"}, want: func(p *program) { p.debug = true }},
		"a choice takes each of its words":        {args: []string{"--log-format", "text"}, want: func(p *program) { p.format = "text" }},
		"bounds belong to what is allowed":        {args: []string{"--retries=100", "--delay=1"}, want: func(p *program) { p.retries, p.delay = 100, time.Second }},
		"a flag's value may follow after a space": {args: []string{"--retries", "3"}, want: func(p *program) { p.retries = 3 }},
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
		"a flag out of bounds":          {[]string{"--retries=101"}, nil, []string{"--retries", `"101"`, "from 0 to 100"}},
		"seconds out of bounds":         {nil, map[string]string{"DEMO_DELAY": "0"}, []string{"DEMO_DELAY", "from 1 to 3600"}},
		"an unknown word":               {[]string{"--log-format=xml"}, nil, []string{"--log-format", "json, text"}},
		"an unknown flag":               {[]string{"--retrys=1"}, nil, []string{"retrys", "--help"}},
		"an argument that is no flag":   {[]string{"serve"}, nil, []string{"serve", "flags only"}},
		"a switch with a strange value": {[]string{"--debug=perhaps"}, nil, []string{"--debug", "true or false"}},
		"every mistake at once": {nil, map[string]string{"DEMO_RETRIES": "x", "DEMO_DELAY": "y"},
			[]string{"DEMO_RETRIES", "DEMO_DELAY"}},
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

func TestHelpShowsEverySetting(t *testing.T) {
	s, _ := newSet()
	var out bytes.Buffer
	if err := s.Parse([]string{"--help"}, func(string) string { return "" }, &out); !errors.Is(err, settings.ErrHelp) {
		t.Fatalf("got %v, want ErrHelp", err)
	}
	for _, part := range []string{"Demo shows settings.", "Sending", "--retries", "DEMO_RETRIES", "(default 5)",
		"--delay SECONDS", "One of: json, text.", "--debug "} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the help lacks %q:\n%s", part, out.String())
		}
	}
}
