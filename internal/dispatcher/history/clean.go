// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Check tells what makes r one that cannot be kept, nil for most. What only needs cutting or tidying is Clean's.
func (r *Record) Check() error {
	if _, err := ParseID(r.ID); err != nil {
		return fmt.Errorf("id %q: %w", cut(r.ID, 64), err)
	}
	if r.ReplayOf != "" {
		if _, err := ParseID(r.ReplayOf); err != nil {
			return fmt.Errorf("replay of %q: %w", cut(r.ReplayOf, 64), err)
		}
	}
	if !slices.Contains(Statuses(), r.Status) {
		return fmt.Errorf("status %q is not a final one", cut(string(r.Status), 64))
	}
	if r.Round < 1 || r.Round > math.MaxInt32 {
		return fmt.Errorf("round %d: they count from 1", r.Round)
	}
	if !storable(r.CompletedAt) {
		return errors.New("the time of completion is missing or out of range")
	}
	return r.checkIdentifiers()
}

func (r *Record) checkIdentifiers() error {
	for _, identifier := range [...]struct{ name, text string }{
		{"subscription id", r.SubscriptionID}, {"namespace", r.Namespace},
		{"event id", r.EventID}, {"event type", r.EventType},
	} {
		text := identifier.text
		if text == "" || len(text) > MaxIdentifier || text != printable(text) {
			return fmt.Errorf("the %s is empty, longer than %d bytes, or not text", identifier.name, MaxIdentifier)
		}
	}
	return nil
}

// storable: from 1970 to 9999, which every store and RFC 3339 can tell.
func storable(t time.Time) bool { return t.Unix() > 0 && t.Year() <= 9999 }

// Clean returns r as it is kept: texts cut to their bounds, and valid UTF-8 without NUL; the answers' beginnings as
// they came; times in UTC to the microsecond; attempts by number, each once. It leaves what r points to alone, and
// cleaning twice is cleaning once.
func Clean(r Record) Record {
	r.Reason, r.Error = text(r.Reason, MaxText), text(r.Error, MaxText)
	r.RequestURL = text(r.RequestURL, MaxURL)
	r.CompletedAt = moment(r.CompletedAt)
	r.Attempts = cleanAttempts(r.Attempts)
	return r
}

func cleanAttempts(attempts []Attempt) []Attempt {
	if len(attempts) == 0 {
		return nil
	}
	cleaned := make([]Attempt, len(attempts))
	for i := range attempts {
		cleaned[i] = cleanAttempt(attempts[i])
	}
	return inOrder(cleaned)
}

// inOrder sorts by number, keeps the first of those with the same, and of those the latest MaxAttempts.
func inOrder(attempts []Attempt) []Attempt {
	slices.SortStableFunc(attempts, func(a, b Attempt) int { return cmp.Compare(a.Number, b.Number) })
	attempts = slices.CompactFunc(attempts, func(a, b Attempt) bool { return a.Number == b.Number })
	return attempts[max(0, len(attempts)-MaxAttempts):]
}

func cleanAttempt(a Attempt) Attempt {
	a.StartedAt = moment(a.StartedAt)
	a.Duration = max(a.Duration, 0).Truncate(time.Microsecond)
	a.Number = min(max(a.Number, 0), math.MaxInt32)
	a.StatusCode = min(max(a.StatusCode, 0), 999)
	a.Reason, a.Error = text(a.Reason, MaxText), text(a.Error, MaxText)
	a.RemoteAddress = text(a.RemoteAddress, MaxText)
	a.ResponseBody = beginning(a.ResponseBody)
	a.RequestHeaders = cleanHeaders(a.RequestHeaders)
	return a
}

func beginning(body []byte) []byte {
	if len(body) == 0 {
		return nil
	}
	return slices.Clone(body[:min(len(body), MaxResponseBody)])
}

// cleanHeaders keeps the first MaxHeaders by name.
func cleanHeaders(headers map[string]string) map[string]string {
	if len(headers) == 0 {
		return nil
	}
	cleaned := make(map[string]string, min(len(headers), MaxHeaders))
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		if len(cleaned) == MaxHeaders {
			break
		}
		cleaned[text(name, MaxIdentifier)] = text(headers[name], MaxText)
	}
	return cleaned
}

// moment is t as it is kept. What no calendar can tell becomes the zero time.
func moment(t time.Time) time.Time {
	if !storable(t) {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// text is s, printable, and cut to at most n bytes.
func text(s string, n int) string { return cut(printable(s), n) }

// printable replaces what is not UTF-8, and NUL, which PostgreSQL has no place for in a text.
func printable(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	return strings.ReplaceAll(s, "\x00", string(utf8.RuneError))
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
