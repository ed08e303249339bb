// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package settings binds each setting of a program to a flag and an environment variable, with bounds and a reason.
//
// A flag wins over the variable, the variable over the default; an empty variable counts as absent. Parse names every
// setting that is wrong, where it came from and what would be right. It knows nothing of what the settings mean.
package settings

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Set is the settings of one program.
type Set struct {
	// Version is what --version prints after the program's name.
	Version string

	program, purpose string
	settings         []*setting
	checks           []func() error
	group            string
}

// setting is one of them. placeholder stands for its value in the help, bounds says in a sentence what may be given.
type setting struct {
	flag, variable, placeholder, byDefault, usage, bounds, group string
	isSwitch, secret                                             bool
	parse                                                        func(string) error
}

// ErrHelp is returned by Parse where --help was asked for.
var ErrHelp = pflag.ErrHelp

// ErrVersion is returned by Parse where --version was asked for.
var ErrVersion = errors.New("version requested")

// New makes the empty settings of a program; purpose is the first line of its help.
func New(program, purpose string) *Set { return &Set{program: program, purpose: purpose} }

// Group starts a headed part of the help.
func (s *Set) Group(title string) { s.group = title }

// Check adds a look at several settings together, taken once each of them alone was found right.
func (s *Set) Check(check func() error) { s.checks = append(s.checks, check) }

// add takes the name of the value from a back-quoted word of the usage.
func (s *Set) add(x *setting) {
	if before, rest, ok := strings.Cut(x.usage, "`"); ok {
		name, after, _ := strings.Cut(rest, "`")
		x.placeholder, x.usage = name, before+name+after
	}
	x.group = s.group
	s.settings = append(s.settings, x)
}

// String adds a text setting; a back-quoted word of usage stands for the value in the help. check may be nil; its error
// says what would be right.
func (s *Set) String(target *string, flag, variable, byDefault, usage string, check func(string) error) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, placeholder: "TEXT", byDefault: byDefault, usage: usage,
		parse: func(text string) error {
			if check != nil {
				if err := check(text); err != nil {
					return err
				}
			}
			*target = text
			return nil
		}})
}

// Secret adds a text setting whose value is never printed, not even in an error; check must not quote it either.
func (s *Set) Secret(target *string, flag, variable, byDefault, usage string, check func(string) error) {
	s.String(target, flag, variable, byDefault, usage, check)
	s.settings[len(s.settings)-1].secret = true
}

// Choice adds a setting that is one of a few words, the first by default.
func (s *Set) Choice(target *string, flag, variable string, choices []string, usage string) {
	s.String(target, flag, variable, choices[0], usage, func(text string) error {
		for _, c := range choices {
			if c == text {
				return nil
			}
		}
		return fmt.Errorf("write one of: %s", strings.Join(choices, ", "))
	})
	x := s.settings[len(s.settings)-1]
	x.placeholder, x.bounds = "WORD", "One of: "+strings.Join(choices, ", ")+"."
}

// Int adds a whole number from least to most.
func (s *Set) Int(target *int, flag, variable string, byDefault, least, most int, usage string) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, placeholder: "NUMBER", byDefault: strconv.Itoa(byDefault),
		usage: usage, bounds: fmt.Sprintf("From %d to %d.", least, most), parse: func(text string) error {
			n, err := strconv.Atoi(text)
			if err != nil || n < least || n > most {
				return fmt.Errorf("write a whole number from %d to %d", least, most)
			}
			*target = n
			return nil
		}})
}

// Seconds adds a time from least to most. A plain number is in seconds; "1m30s" works too.
func (s *Set) Seconds(target *time.Duration, flag, variable string, byDefault, least, most time.Duration,
	usage string,
) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, placeholder: "SECONDS", byDefault: seconds(byDefault), usage: usage,
		bounds: fmt.Sprintf("From %s to %s.", seconds(least), seconds(most)), parse: func(text string) error {
			d, err := duration(text)
			if err != nil || d < least || d > most {
				return fmt.Errorf("write seconds from %s to %s, or a time such as 1m30s", seconds(least), seconds(most))
			}
			*target = d
			return nil
		}})
}

// Bool adds a switch.
func (s *Set) Bool(target *bool, flag, variable string, byDefault bool, usage string) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, isSwitch: true, byDefault: strconv.FormatBool(byDefault),
		usage: usage, parse: func(text string) error {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return errors.New("write true or false")
			}
			*target = b
			return nil
		}})
}

// duration reads seconds, or a time with units.
func duration(text string) (time.Duration, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return time.ParseDuration(text)
	}
	const most = 1 << 33 // seconds, 272 years: more does not fit
	if !(n >= -most && n <= most) {
		return 0, errors.New("out of range")
	}
	return time.Duration(n * float64(time.Second)), nil
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// NotEmpty checks a text that must say something, for String.
func NotEmpty(text string) error {
	if text == "" {
		return errors.New("write a text that is not empty")
	}
	return nil
}

// HostPort checks an address to listen on, for String.
func HostPort(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("write host:port, or :port for all addresses, with a port from 0 to 65535")
	}
	return nil
}

// value is how a setting shows itself to pflag. It keeps its mistake, so that pflag goes on to the next flag.
type value struct {
	*setting
	seen    bool
	mistake error
}

func (v *value) String() string { return v.byDefault }
func (v *value) Type() string   { return v.placeholder }
func (v *value) Set(text string) error {
	v.seen = true
	v.mistake = v.read("--"+v.flag, text)
	return nil
}

// read takes the value; its error names the setting as from does.
func (x *setting) read(from, text string) error {
	err := x.parse(text)
	switch {
	case err == nil:
		return nil
	case x.secret:
		return fmt.Errorf("%s: %w", from, err)
	default:
		return fmt.Errorf("%s: %q: %w", from, text, err)
	}
}

// Parse reads the environment and the arguments (without the program's name). It returns every mistake at once. Help
// and version go to out; nothing else counts where they are asked for.
func (s *Set) Parse(args []string, getenv func(string) string, out io.Writer) error {
	flags, values := s.flags()
	version := flags.Bool("version", false, "")
	err := flags.Parse(args)
	var mistakes []error
	switch {
	case errors.Is(err, ErrHelp):
		s.printHelp(out)
		return ErrHelp
	case err == nil && *version:
		_, _ = fmt.Fprintln(out, s.program, s.Version)
		return ErrVersion
	case err != nil:
		mistakes = append(mistakes, misspelled(err))
	case flags.NArg() > 0:
		mistakes = append(mistakes, s.stray(flags.Arg(0)))
	}
	for _, v := range values {
		if text := strings.TrimSpace(getenv(v.variable)); v.variable != "" && text != "" && !v.seen {
			v.mistake = v.read(v.variable, text)
		}
		if v.mistake != nil {
			mistakes = append(mistakes, v.mistake)
		}
	}
	if len(mistakes) == 0 {
		for _, check := range s.checks {
			mistakes = append(mistakes, check())
		}
	}
	return errors.Join(mistakes...)
}

func (s *Set) flags() (*pflag.FlagSet, []*value) {
	flags := pflag.NewFlagSet(s.program, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	values := make([]*value, len(s.settings))
	for i, x := range s.settings {
		values[i] = &value{setting: x}
		f := flags.VarPF(values[i], x.flag, "", x.usage)
		if x.isSwitch {
			f.NoOptDefVal = "true"
		}
	}
	return flags, values
}

// misspelled is pflag's error, but for the whole argument that it quotes where a flag has one dash: that may hold a
// secret.
func misspelled(err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "" {
		return fmt.Errorf("unknown flag -%s: flags have two dashes; see --help", unknown.GetSpecifiedName())
	}
	return fmt.Errorf("%w; see --help", err)
}

// stray is an argument that belongs to no flag. It may be the value of a secret one, so what looks like an address is
// not quoted.
func (s *Set) stray(argument string) error {
	if strings.Contains(argument, "://") {
		return fmt.Errorf("an argument without its flag: %s takes flags only; see --help", s.program)
	}
	return fmt.Errorf("%q: %s takes flags only; see --help", argument, s.program)
}
