// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fences reads the fenced blocks of a Markdown document, so that tests run what it shows, to the letter.
package fences

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// Fence is one block.
type Fence struct {
	Line     int    // of its opening, from 1
	Heading  string // the nearest one above, without its #
	Language string // "" for none
	Text     string
	NotRun   string // why nobody can run it: from a comment on the line above, <!-- not run: why -->
}

func (f Fence) String() string {
	return fmt.Sprintf("line %d, %s below %q", f.Line, f.Language, f.Heading)
}

var notRun = regexp.MustCompile(`^<!-- not run: (.+) -->$`)

// Read reads a document.
func Read(path string) ([]Fence, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, open := parse(string(text))
	if open != nil {
		return nil, fmt.Errorf("%s: %s does not end", path, open)
	}
	return all, nil
}

// parse returns the blocks, and the one that has no end, if there is one.
func parse(text string) (all []Fence, open *Fence) {
	var heading, before string
	for i, line := range strings.Split(text, "\n") {
		mark, isMark := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isMark:
			all, open = append(all, *open), nil
		case open != nil:
			open.Text += line + "\n"
		case isMark:
			open = &Fence{Line: i + 1, Heading: heading, Language: mark}
			if why := notRun.FindStringSubmatch(before); why != nil {
				open.NotRun = why[1]
			}
		case strings.HasPrefix(line, "#"):
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
		before = line
	}
	return all, open
}
