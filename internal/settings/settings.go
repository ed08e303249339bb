// Package settings binds each setting of a program to a flag and an environment variable, with bounds and a reason.
//
// A flag wins over the variable, the variable over the default; an empty variable counts as absent. Parse names the
// setting that is wrong, where it came from and what would be right. It knows nothing of what the settings mean.
package settings

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
)

// Set is the settings of one program.
type Set struct {
	program, purpose string
	settings         []*setting
	group            string
}

type setting struct {
	flag, variable, kind, byDefault, usage, group string
	secret                                        bool
	parse                                         func(string) error
}

// ErrHelp is returned by Parse where --help was asked for.
var ErrHelp = pflag.ErrHelp

// New makes the empty settings of a program; purpose is the first line of its help.
func New(program, purpose string) *Set { return &Set{program: program, purpose: purpose} }

// Group starts a headed part of the help.
func (s *Set) Group(title string) { s.group = title }

func (s *Set) add(x *setting) {
	x.group = s.group
	s.settings = append(s.settings, x)
}

// String adds a text setting. check may be nil; its error says what would be right.
func (s *Set) String(target *string, flag, variable, byDefault, usage string, check func(string) error) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, kind: "text", byDefault: byDefault, usage: usage,
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

// Secret adds a text setting whose value is never printed, not even in an error.
func (s *Set) Secret(target *string, flag, variable, byDefault, usage string) {
	s.String(target, flag, variable, byDefault, usage, nil)
	s.settings[len(s.settings)-1].secret = true
}

// Choice adds a setting that is one of a few words.
func (s *Set) Choice(target *string, flag, variable string, choices []string, usage string) {
	s.String(target, flag, variable, choices[0], usage+" One of: "+strings.Join(choices, ", ")+".",
		func(text string) error {
			for _, c := range choices {
				if c == text {
					return nil
				}
			}
			return fmt.Errorf("write one of: %s", strings.Join(choices, ", "))
		})
}

// Int adds a whole number from least to most.
func (s *Set) Int(target *int, flag, variable string, byDefault, least, most int, usage string) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, kind: "number", byDefault: strconv.Itoa(byDefault),
		usage: usage, parse: func(text string) error {
			n, err := strconv.Atoi(text)
			if err != nil || n < least || n > most {
				return fmt.Errorf("write a whole number from %d to %d", least, most)
			}
			*target = n
			return nil
		}})
}

// Seconds adds a time from least to most. A plain number is in seconds; "1m30s" works too.
func (s *Set) Seconds(target *time.Duration, flag, variable string, byDefault, least, most time.Duration, usage string) {
	*target = byDefault
	s.add(&setting{flag: flag, variable: variable, kind: "seconds", byDefault: seconds(byDefault), usage: usage,
		parse: func(text string) error {
			d, err := time.ParseDuration(text)
			if n, e := strconv.ParseFloat(text, 64); e == nil {
				d, err = time.Duration(n*float64(time.Second)), nil
			}
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
	s.add(&setting{flag: flag, variable: variable, kind: "bool", byDefault: strconv.FormatBool(byDefault),
		usage: usage, parse: func(text string) error {
			b, err := strconv.ParseBool(text)
			if err != nil {
				return errors.New("write true or false")
			}
			*target = b
			return nil
		}})
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// value is how a setting shows itself to pflag.
type value struct {
	*setting
	seen bool
}

func (v *value) String() string { return v.byDefault }
func (v *value) Type() string   { return v.kind }
func (v *value) Set(text string) error {
	v.seen = true
	if err := v.parse(text); err != nil {
		return v.wrong("--"+v.flag, text, err)
	}
	return nil
}

func (x *setting) wrong(from, text string, err error) error {
	if x.secret {
		return fmt.Errorf("%s: %w", from, err)
	}
	return fmt.Errorf("%s: %q: %w", from, text, err)
}

// Parse reads the environment and the arguments (without the program's name). It returns every mistake at once.
func (s *Set) Parse(args []string, getenv func(string) string, help io.Writer) error {
	flags := pflag.NewFlagSet(s.program, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	var mistakes []error
	values := make([]*value, len(s.settings))
	for i, x := range s.settings {
		v := &value{setting: x}
		values[i] = v
		f := flags.VarPF(v, x.flag, "", x.usage)
		if x.kind == "bool" {
			f.NoOptDefVal = "true"
		}
	}
	err := flags.Parse(args)
	if errors.Is(err, ErrHelp) {
		s.printHelp(help)
		return ErrHelp
	}
	if err != nil {
		mistakes = append(mistakes, flagMistake(err))
	} else if flags.NArg() > 0 {
		mistakes = append(mistakes, fmt.Errorf("%q: %s takes flags only; see --help", flags.Arg(0), s.program))
	}
	for _, v := range values {
		text := getenv(v.variable)
		if v.variable == "" || text == "" || v.seen {
			continue
		}
		if err := v.parse(text); err != nil {
			mistakes = append(mistakes, v.wrong(v.variable, text, err))
		}
	}
	return errors.Join(mistakes...)
}

// flagMistake unwraps pflag's own sentence where ours inside it says more.
func flagMistake(err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return invalid.Unwrap()
	}
	return fmt.Errorf("%w; see --help", err)
}

func (s *Set) printHelp(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s\n\nUsage: %s [flags]\n", s.purpose, s.program)
	_, _ = fmt.Fprint(w, "Each flag can be set by its environment variable instead; the flag wins.\n")
	group := ""
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, x := range s.settings {
		if x.group != group {
			group = x.group
			_ = table.Flush()
			_, _ = fmt.Fprintf(w, "\n%s\n", group)
		}
		_, _ = fmt.Fprintf(table, "  --%s %s\t%s\t%s\n", x.flag, x.placeholder(), x.variable, x.explanation())
	}
	_ = table.Flush()
}

func (x *setting) placeholder() string {
	if x.kind == "bool" {
		return ""
	}
	return strings.ToUpper(x.kind)
}

func (x *setting) explanation() string {
	if x.byDefault == "" {
		return x.usage
	}
	return fmt.Sprintf("%s (default %s)", x.usage, x.byDefault)
}
