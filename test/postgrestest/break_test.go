// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgrestest_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/test/postgrestest"
)

func TestAServerThatHangsOrIsFullDoesNotAnswerUntilItIsMended(t *testing.T) {
	server := postgrestest.ForTest(t, "--wal-segsize=1")
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	const large = "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 4000)"
	if err := server.Fill(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), large); err == nil {
		t.Error("a file grew although the disk is full")
	}
	if err := server.Free(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), large); err != nil {
		t.Error(err)
	}
	if err := server.Hang(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := pgx.Connect(ctx, url); err == nil {
		t.Error("it answers although it hangs")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	execute(t, url, "SELECT 1")
}
