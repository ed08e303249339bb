// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package history

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bounds of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Filter selects records; every condition that it sets must hold. The zero value of each sets none.
type Filter struct {
	// SubscriptionIDs and Namespaces are sets. Nil is all, but an empty one that is not nil is none: what remains of a
	// caller's rights must never read as all.
	SubscriptionIDs []string
	Namespaces      []string
	EventID         string
	EventType       string
	Statuses        []Status // a set; nil or empty is all
	// Since and Until bound CreatedAt: from Since on, and before Until. Records have milliseconds, and so a fraction of
	// one in either rounds up.
	Since time.Time
	Until time.Time
	Limit int // records in a page, 1 to MaxLimit; 0 is DefaultLimit
	// After continues where a page ended; the zero value starts with the newest.
	After Cursor
}

// Check tells what is wrong with the filter itself.
func (f *Filter) Check() error {
	if f.Limit < 0 || f.Limit > MaxLimit {
		return fmt.Errorf("limit %d is not between 1 and %d", f.Limit, MaxLimit)
	}
	for _, s := range f.Statuses {
		if !slices.Contains(Statuses(), s) {
			return fmt.Errorf("status %q is not one of %v", cut(string(s), 64), Statuses())
		}
	}
	if f.After != "" {
		if _, err := ParseCursor(string(f.After)); err != nil {
			return err
		}
	}
	return nil
}

// PageSize is Limit with its default.
func (f *Filter) PageSize() int {
	if f.Limit == 0 {
		return DefaultLimit
	}
	return f.Limit
}

// Empty tells that nothing can match, whatever there is.
func (f *Filter) Empty() bool {
	return f.SubscriptionIDs != nil && len(f.SubscriptionIDs) == 0 || f.Namespaces != nil && len(f.Namespaces) == 0
}

// Bounds are the ids that Since, Until and After leave: from low on, and before high.
func (f *Filter) Bounds() (low, high UUID) {
	for i := range high {
		high[i] = 0xff
	}
	if !f.Since.IsZero() {
		low = FirstID(f.Since)
	}
	if !f.Until.IsZero() {
		high = FirstID(f.Until)
	}
	if after, err := ParseID(string(f.After)); err == nil && slices.Compare(after[:], high[:]) < 0 {
		high = after
	}
	return low, high
}

// Match tells whether r is selected and lies after the cursor.
func (f *Filter) Match(r *Record) bool {
	id, err := ParseID(r.ID)
	if err != nil || f.Empty() {
		return false
	}
	low, high := f.Bounds()
	return slices.Compare(low[:], id[:]) <= 0 && slices.Compare(id[:], high[:]) < 0 &&
		(f.SubscriptionIDs == nil || slices.Contains(f.SubscriptionIDs, r.SubscriptionID)) &&
		(f.Namespaces == nil || slices.Contains(f.Namespaces, r.Namespace)) &&
		(f.EventID == "" || f.EventID == r.EventID) &&
		(f.EventType == "" || f.EventType == r.EventType) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, r.Status))
}

// Page is a part of what a Filter selects: newest first by CreatedAt, then by ID.
type Page struct {
	Records []Record
	Next    Cursor // what follows, "" at the end
}

// Cursor is a place in the order of records, just behind one of them. It stays valid when records come and go, the one
// that it names too, and is the same in every store, so that pages of several stores can be put together.
type Cursor string

var errCursor = errors.New("not a cursor that a page ended with")

// CursorBehind is the place behind r.
func CursorBehind(r *Record) Cursor { return Cursor(r.ID) }

// ParseCursor reads a cursor that a client gives back.
func ParseCursor(text string) (Cursor, error) {
	if _, err := ParseID(text); err != nil {
		return "", errCursor
	}
	return Cursor(text), nil
}
