// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Classes and codes of SQLSTATE (PostgreSQL's manual, appendix A) that we act upon.
const (
	classData       = "22" // a value that a type cannot hold
	classIntegrity  = "23"
	classLimit      = "54" // too large for a row, an index entry, ...
	checkViolation  = "23514"
	undefinedTable  = "42P01"
	undefinedObject = "42704"
	undefinedColumn = "42703"
	noSuchSchema    = "3F000"
	noSuchDatabase  = "3D000"
	readOnly        = "25006"
)

// unavailable are the classes that speak of the server and not of what it was asked.
var unavailable = map[string]bool{
	"08": true, "25": true, "28": true, "3D": true, "40": true, "53": true, "55": true, "57": true, "58": true, "XX": true,
}

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func class(err error) string {
	c := code(err)
	return c[:min(2, len(c))]
}

// noPartition: PostgreSQL found no partition for a row, which it reports as a violation of no constraint in particular.
func noPartition(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == checkViolation && e.ConstraintName == ""
}

// poisoned: it is something in the rows themselves that PostgreSQL, or the way to it, cannot take.
func poisoned(err error) bool {
	switch class(err) {
	case classData, classIntegrity, classLimit:
		return !noPartition(err)
	}
	return false
}

// failed makes err one that callers understand, has Run look after a schema that is gone, and leaves a server that has
// become a standby.
func (s *Store) failed(doing string, err error) error {
	if err == nil || errors.Is(err, history.ErrNotFound) || errors.Is(err, history.ErrUnavailable) {
		return err
	}
	switch code(err) {
	case undefinedTable, undefinedObject, undefinedColumn, noSuchSchema, noSuchDatabase:
		s.state.lose(err)
		return fmt.Errorf("%s: %w: %w", doing, history.ErrUnavailable, err)
	}
	if code(err) == readOnly {
		s.writers.Reset()
	}
	if code(err) == "" || unavailable[class(err)] {
		return fmt.Errorf("%s: %w: %w", doing, history.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
