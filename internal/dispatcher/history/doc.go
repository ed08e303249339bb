// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package history says what is kept of a delivery that has ended, and how it is asked for: Record, Attempt, Filter,
// Page and Cursor.
//
// It promises one order for every store, newest first, which a Cursor continues without gaps or repetitions whatever
// is written meanwhile, and one rule for what two records of the same delivery amount to (Merge), so that records may
// be written twice and in any order. Clean makes any record that passes Check one that every store takes.
//
// It is pure: it must not know where records are kept nor who asks.
package history
