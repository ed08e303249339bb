// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

const (
	helpWidth      = 100 // columns
	helpIndent     = "        "
	variableColumn = 36
)

func (s *Set) printHelp(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s\n\nUsage: %s [flags]\n\n", wrap(s.purpose, "", helpWidth), s.program)
	_, _ = fmt.Fprintln(w, wrap("Each flag has the environment variable beside it; the flag wins over the variable. "+
		"Seconds are plain numbers (90) or have units (1m30s). --help prints this, --version the version.", "", helpWidth))
	for i, x := range s.settings {
		if i == 0 || x.group != s.settings[i-1].group {
			_, _ = fmt.Fprintf(w, "\n%s:\n", x.group)
		}
		flag := strings.TrimRight("  --"+x.flag+" "+x.placeholder, " ")
		if x.variable != "" {
			flag = fmt.Sprintf("%-*s  %s", variableColumn, flag, x.variable)
		}
		_, _ = fmt.Fprintf(w, "%s\n%s\n", flag, wrap(x.explanation(), helpIndent, helpWidth))
	}
}

// explanation is the usage with the bounds and the default.
func (x *setting) explanation() string {
	text := x.usage
	if x.bounds != "" {
		text += " " + x.bounds
	}
	if x.byDefault != "" {
		text += " (default " + x.byDefault + ")"
	}
	return text
}

// wrap breaks text between words into lines of at most width columns, indent included. A longer word has its own line.
func wrap(text, indent string, width int) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			lines = append(lines, indent+line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, indent+line), "\n")
}

// Markdown writes the settings as tables for the documentation, one for each group.
func (s *Set) Markdown(w io.Writer) {
	for i, x := range s.settings {
		if i == 0 || x.group != s.settings[i-1].group {
			_, _ = fmt.Fprintf(w, "\n### %s\n\n| variable | flag | default | |\n| --- | --- | --- | --- |\n", x.group)
		}
		text := strings.ReplaceAll(strings.TrimSpace(x.usage+" "+x.bounds), "|", `\|`)
		_, _ = fmt.Fprintf(w, "| %s | `--%s` | %s | %s |\n", cmp.Or(code(x.variable), "none"), x.flag,
			code(x.byDefault), text)
	}
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}
