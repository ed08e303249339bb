// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// story tells a person what happens, line by line. Its methods may be called at the same time.
type story struct {
	mu    sync.Mutex
	out   io.Writer
	begun time.Time
}

func newStory(out io.Writer) *story { return &story{out: out, begun: time.Now()} }

// tell writes one line: when, who, what.
func (s *story) tell(who, format string, arguments ...any) {
	s.write(fmt.Sprintf("%5.1f s  %-12s %s\n", time.Since(s.begun).Seconds(), who, fmt.Sprintf(format, arguments...)))
}

// show writes a block of text as it is, indented, after an empty line.
func (s *story) show(text string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	s.write("\n    " + strings.Join(lines, "\n    ") + "\n\n")
}

func (s *story) write(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A terminal that went away ends nothing here: the signal that comes with it does.
	_, _ = io.WriteString(s.out, text)
}
