// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	schema        = "nexus_webhooks"
	oldestVersion = 140000 // server_version_num: it can detach a partition beside running queries
)

// Keys of advisory locks, which all programs of a database share: ours begin with "nexus".
const (
	lockMigrate int64 = 0x6e65787573_0001 + iota
	lockCreate
	lockDrop
)

// migrate brings the schema to this program's version, beside other replicas that do the same: one works, the others
// wait. A schema that is already ahead, since a newer replica was here, is left alone.
func (s *Store) migrate(ctx context.Context) error {
	db := stdlib.OpenDB(*s.config.Copy())
	defer func() { _ = db.Close() }()
	if err := checkVersion(ctx, db); err != nil {
		return err
	}
	if err := ensureSchema(ctx, db); err != nil {
		return fmt.Errorf("make the schema %s: %w", schema, err)
	}
	provider, err := migrator(db)
	if err != nil {
		return fmt.Errorf("read the migrations of the delivery history: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the delivery history: %w", err)
	}
	return nil
}

func migrator(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	// Asked for every second, as long as the context lets it.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockMigrate),
		lock.WithLockTimeout(1, uint64(setUpTimeout.Seconds())))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker),
		goose.WithTableName(schema+".migrations"), goose.WithDisableGlobalRegistry(true))
}

func checkVersion(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	if version < oldestVersion {
		return fmt.Errorf("the delivery history needs PostgreSQL %d or later, and this is %d",
			oldestVersion/10000, version/10000)
	}
	return nil
}

// ensureSchema asks first: making what exists needs a right on the whole database that an operator who made it for us
// need not give.
func ensureSchema(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", lockMigrate); err != nil {
		return err
	}
	var exists bool
	err = tx.QueryRowContext(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&exists)
	if err != nil || exists {
		return err
	}
	if _, err := tx.ExecContext(ctx, "CREATE SCHEMA "+schema); err != nil {
		return err
	}
	return tx.Commit()
}
