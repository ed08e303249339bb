// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"nexus.io/webhooks/internal/dispatcher/history"
	"nexus.io/webhooks/internal/dispatcher/history/postgres"
)

const partitions = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '_[0-9]{8}$' ORDER BY 1"

// days are the partitions' names from first on.
func days(first time.Time, n int) string {
	var names []string
	for _, table := range []string{"bodies_", "deliveries_"} {
		for i := range n {
			names = append(names, table+first.UTC().AddDate(0, 0, i).Format("20060102"))
		}
	}
	return strings.Join(names, " ")
}

func TestReplicasThatStartTogetherSetUpOnce(t *testing.T) {
	url := newDatabase(t)
	replicas := make([]*rig, 5)
	for i := range replicas {
		replicas[i] = unstartedRig(t, url, 7)
	}
	for _, r := range replicas {
		if err := r.Ready(t.Context()); !errors.Is(err, history.ErrUnavailable) {
			t.Errorf("before it runs: %v", err)
		}
		r.start()
	}
	for _, r := range replicas {
		r.awaitReady()
		r.write(record(time.Now()))
		if r.log.contains("level=WARN") {
			t.Error("a replica got into another's way")
		}
	}
	if got := replicas[0].value("SELECT version_id::text FROM nexus_webhooks.migrations ORDER BY id"); got != "0 1" {
		t.Errorf("migrations that ran: %s", got)
	}
	if got := replicas[0].count(); got != "5" {
		t.Errorf("there are %s rows", got)
	}
}

func TestReplicasThatMigrateTogetherDoNotGetInEachOthersWay(t *testing.T) {
	for range 3 {
		r := unstartedRig(t, newDatabase(t), 7)
		start := make(chan struct{})
		var replicas sync.WaitGroup
		for range 8 {
			replicas.Go(func() {
				<-start
				if err := r.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		replicas.Wait()
	}
}

func TestReplicasThatTendTogetherDoNotGetInEachOthersWay(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	for range 5 {
		now = now.AddDate(0, 0, 5)
		at := now
		r.SetClock(func() time.Time { return at })
		var replicas sync.WaitGroup
		for range 5 {
			replicas.Go(func() {
				if err := r.Tend(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		replicas.Wait()
	}
}

func TestASchemaThatANewerReplicaLeftIsLeftAlone(t *testing.T) {
	r := newRig(t)
	r.value("INSERT INTO nexus_webhooks.migrations (version_id, is_applied) VALUES (99, true)")
	openRig(t, r.url).write(record(time.Now()))
}

func TestARoleThatOwnsOnlyTheSchemaIsEnough(t *testing.T) {
	url := newDatabase(t)
	(&rig{t: t, url: url}).value("CREATE ROLE humble LOGIN")
	(&rig{t: t, url: url}).value("CREATE SCHEMA nexus_webhooks AUTHORIZATION humble")
	openRig(t, strings.Replace(url, "nexus@", "humble@", 1)).write(record(time.Now()))
}

func TestASchemaThatVanishesIsSetUpAnew(t *testing.T) {
	r := newRig(t)
	r.write(record(time.Now()))
	r.value("DROP SCHEMA nexus_webhooks CASCADE")
	if _, err := r.List(t.Context(), history.Filter{}); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("without its tables: %v", err)
	}
	r.awaitReady()
	r.write(record(time.Now()))
}

func TestPartitionsAreMadeAheadAndDroppedInTheirTime(t *testing.T) {
	r := newRig(t)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	now := today.Add(25 * time.Hour) // tomorrow, lest midnight passes during the test
	r.SetClock(func() time.Time { return now })
	tend := func() {
		t.Helper()
		if err := r.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.write(record(today.AddDate(0, 0, -5)), record(now)) // 5 days ago is made when it is needed
	tend()
	if got := r.value(partitions); !strings.Contains(got, days(today.AddDate(0, 0, 1), 4)[:15]) || !strings.Contains(got, days(today.AddDate(0, 0, -5), 1)[:15]) {
		t.Errorf("there are %s", got)
	}
	old, young := record(today.AddDate(0, 0, -5)), record(now)
	if got := r.write(old, young); got.Stored != 2 {
		t.Errorf("%+v", got)
	}
	now = today.AddDate(0, 0, 3).Add(-time.Millisecond) // 7 days after the end of that day, but for a moment
	tend()
	r.get(old.ID)
	now = today.AddDate(0, 0, 3)
	tend()
	if _, err := r.Get(t.Context(), old.ID); !errors.Is(err, history.ErrNotFound) {
		t.Errorf("it should have gone: %v", err)
	}
	r.get(young.ID)
	if got, want := r.value(partitions), days(today, 7); got != want {
		t.Errorf("there are\n%s\nwant\n%s", got, want)
	}
	if diff := cmp.Diff(history.Written{Stored: 1, Repeated: 1, Expired: 1}, r.write(old, young, record(now))); diff != "" {
		t.Error("a batch that names the dropped day (-want +got):\n" + diff)
	}
	if got, want := r.value(partitions), days(today, 7); got != want {
		t.Errorf("then there are\n%s\nwant\n%s", got, want)
	}
}

func TestAReplicaThatDidNotSeeADropGoesOn(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	other := openRig(t, r.url)
	old := record(now.AddDate(0, 0, -5))
	other.write(old, record(now))
	later := func() time.Time { return now.AddDate(0, 0, 4) }
	r.SetClock(later)
	other.SetClock(later)
	if err := r.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	batch := history.Batch{Records: []history.Record{old, record(now)}}
	if _, err := other.Write(t.Context(), batch); !errors.Is(err, history.ErrUnavailable) {
		t.Errorf("the first try: %v", err)
	}
	if written, err := other.Write(t.Context(), batch); err != nil || written.Stored != 1 || written.Expired != 1 {
		t.Errorf("the second: %+v, %v", written, err)
	}
}

func TestOneReplicaDropsAtATimeAndNoReaderHoldsItUp(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	r.write(record(now.AddDate(0, 0, -5)))
	r.SetClock(func() time.Time { return now.AddDate(0, 0, 4) })
	conn, err := pgx.Connect(t.Context(), r.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT FROM nexus_webhooks.deliveries"); err != nil {
		t.Fatal(err)
	}
	var replicas sync.WaitGroup
	for range 3 {
		replicas.Go(func() { _ = r.Tend(t.Context()) }) // waits for the reader, until its lock times out
	}
	for range 20 { // meanwhile
		r.write(record(now))
		if _, err := r.List(t.Context(), history.Filter{}); err != nil {
			t.Error(err)
		}
	}
	replicas.Wait()
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return r.Tend(t.Context()) }) // goes on from where the first was cut off
	if got := r.value(partitions); strings.Contains(got, days(now.AddDate(0, 0, -5), 1)[:15]) {
		t.Errorf("there are %s", got)
	}
}

func TestOpenNamesWhatIsWrongWithoutThePassword(t *testing.T) {
	const secret = "s3cr3t"
	for name, o := range map[string]postgres.Options{
		"no address":          {URL: " ", RetentionDays: 1},
		"a port that is none": {URL: "postgres://u:" + secret + "@h:x/d", RetentionDays: 1},
		"a bad escape":        {URL: "postgres://u:" + secret + "%zz@h/d", RetentionDays: 1},
		"a bad parameter":     {URL: "postgres://u:" + secret + "@h/d?sslmode=" + secret, RetentionDays: 1},
		"no retention":        {URL: "postgres://u:" + secret + "@h/d"},
		"too many readers":    {URL: "postgres://u:" + secret + "@h/d", RetentionDays: 1, Readers: 65},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := postgres.Open(o)
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v", err)
			}
		})
	}
}
