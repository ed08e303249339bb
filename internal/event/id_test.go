// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package event

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestEventIDsSortByTimeAndDiffer(t *testing.T) {
	form := regexp.MustCompile(`^evt_[0-9a-hjkmnp-tv-z]{26}$`)
	var ids []string
	for i := range 100 {
		ids = append(ids, newIDAt(now.Add(time.Duration(i)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("ids are not sorted or not unique: %q", ids)
	}
	for _, id := range append(ids, NewID(), IDFromKey("k")) {
		if !form.MatchString(id) || !validID(id) {
			t.Errorf("id %q has not the form %s", id, form)
		}
	}
	if a, b := newIDAt(now), newIDAt(now); a == b {
		t.Errorf("two ids of the same millisecond are both %q", a)
	}
}

func TestIDFromKeyIsStable(t *testing.T) {
	if a, b := IDFromKey("order-5"), IDFromKey("order-5"); a != b {
		t.Errorf("the same key gave %q and %q", a, b)
	}
	if IDFromKey("order-5") == IDFromKey("order-6") {
		t.Error("two keys gave the same id")
	}
}

func TestIDsOfBatchKeysAreTheirOwn(t *testing.T) {
	if a, b := IDFromBatchKey("order", 5), IDFromBatchKey("order", 5); a != b {
		t.Errorf("the same key and index gave %q and %q", a, b)
	}
	ids := []string{
		IDFromBatchKey("k", 0), IDFromBatchKey("k", 1), IDFromBatchKey("k/0", 1), IDFromBatchKey("k", 11),
		IDFromBatchKey("1k", 1), IDFromKey("k"), IDFromKey("k/0"), IDFromKey("0k"), IDFromKey("0\x00k"),
	}
	slices.Sort(ids)
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("two of %q are the same", ids)
	}
}

func TestDeliveryIDIsAUUIDOfVersion7(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	text := NewDeliveryID()
	id, err := uuid.Parse(text)
	if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || id.String() != text {
		t.Fatalf("%q: %v, version %v, variant %v", text, err, id.Version(), id.Variant())
	}
	if at := time.Unix(id.Time().UnixTime()); at.Before(before) || at.After(time.Now()) {
		t.Errorf("%q says it is of %v", text, at)
	}
	if NewDeliveryID() == text {
		t.Error("two ids are the same")
	}
}

func TestSubscriptionIDIsDerived(t *testing.T) {
	const want = "sub_6316e01c9e1d" // printf %s 7c9e6679-7425-40de-944b-e07fc1f90ae7 | sha256sum
	if got := SubscriptionID("7c9e6679-7425-40de-944b-e07fc1f90ae7"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func BenchmarkNewDeliveryID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = NewDeliveryID()
	}
}
