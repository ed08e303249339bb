// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgrestest_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/test/postgrestest"
)

func TestDataOutlivesStopAndCrash(t *testing.T) {
	server := postgrestest.ForTest(t)
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	execute(t, url, "CREATE TABLE t (n int)")
	for _, end := range []func(){server.Stop, server.Kill} {
		execute(t, url, "INSERT INTO t VALUES (1)")
		end()
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Fatal("it answers although it has ended")
		}
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, url, "DO $$ BEGIN ASSERT (SELECT count(*) FROM t) = 2; END $$")
}

func TestAMachineWithoutPostgreSQLIsToldWhatToInstall(t *testing.T) {
	postgrestest.SetInstalled(t, t.TempDir())
	t.Setenv("PATH", t.TempDir())
	if _, err := postgrestest.Start(); err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") {
		t.Errorf("got %v", err)
	}
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}
