// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"
)

// Bounds of what one call may take.
const (
	connectTimeout = 3 * time.Second
	readTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second // of one transaction
	setUpTimeout   = 10 * time.Minute // with migrations, and the wait for another replica's
	tendTimeout    = 5 * time.Minute
	closeTimeout   = 3 * time.Second
	lockTimeout    = 5 * time.Second // tending gives way to what is under way, and comes again
)

// Bounds and defaults of Options.
const (
	DefaultRetentionDays = 30
	MaxRetentionDays     = 400 // a partition for each: planning a query takes longer with their number
	defaultReaders       = 4
	defaultWriters       = 2
	maxConnections       = 64
)

// Options of a Store.
type Options struct {
	// URL is of the form postgres://user:password@host:5432/database?sslmode=verify-full, or a list of keywords and
	// values as libpq takes it; several hosts by commas, with target_session_attrs=read-write to find the primary among
	// them. What it leaves out comes from the usual PG* variables.
	URL string
	// RetentionDays is for how many days a delivery is kept after it was made, 1 to MaxRetentionDays; up to a day more.
	RetentionDays int
	// Readers and Writers are how many connections are opened at most for each; 0 for a default. One more is in use
	// now and then, to tend the schema.
	Readers, Writers int
	Log              *slog.Logger
}

// CheckURL tells what is wrong with an address, without repeating any of it: it may hold a password.
func CheckURL(url string) error {
	_, err := parse(url)
	return err
}

func parse(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil || strings.TrimSpace(url) == "" {
		return nil, errors.New("not an address of PostgreSQL: write postgres://user:password@host:5432/database, with " +
			"characters other than letters and digits in a password percent-encoded")
	}
	config.ConnConfig.ConnectTimeout = cmp.Or(config.ConnConfig.ConnectTimeout, connectTimeout)
	// A statement of a batch is planned for what the batch holds.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	parameter(config, "application_name", "nexus-webhooks")
	return config, nil
}

// parameter sets what the address leaves open.
func parameter(config *pgxpool.Config, name, value string) {
	if _, ok := config.ConnConfig.RuntimeParams[name]; !ok {
		config.ConnConfig.RuntimeParams[name] = value
	}
}

// Store keeps records in PostgreSQL. Its methods may be called by any number of goroutines.
type Store struct {
	log       *slog.Logger
	retention time.Duration
	config    *pgx.ConnConfig // for a connection outside the pools
	readers   *pgxpool.Pool
	writers   *pgxpool.Pool
	state     state
	known     partitions
	complain  rate.Sometimes
	clock     func(context.Context, querier) (time.Time, error)
}

// Open checks the options and makes a Store. It connects to nothing: Run does, and sets up what the other methods need.
func Open(o Options) (*Store, error) {
	if o.RetentionDays < 1 || o.RetentionDays > MaxRetentionDays {
		return nil, fmt.Errorf("a retention of %d days is not between 1 and %d", o.RetentionDays, MaxRetentionDays)
	}
	for _, n := range []int{o.Readers, o.Writers} {
		if n < 0 || n > maxConnections {
			return nil, fmt.Errorf("%d connections are not between 1 and %d", n, maxConnections)
		}
	}
	config, err := parse(o.URL)
	if err != nil {
		return nil, err
	}
	s := &Store{
		complain: rate.Sometimes{First: 1, Interval: time.Second},
		log:      o.Log, config: config.ConnConfig.Copy(), clock: serverTime,
		retention: time.Duration(o.RetentionDays) * 24 * time.Hour,
	}
	s.state.lost = make(chan struct{}, 1)
	if s.writers, err = pool(config, cmp.Or(o.Writers, defaultWriters), writeTimeout); err != nil {
		return nil, err
	}
	alongIndexes(config)
	if s.readers, err = pool(config, cmp.Or(o.Readers, defaultReaders), readTimeout); err != nil {
		s.writers.Close()
		return nil, err
	}
	return s, nil
}

// alongIndexes has pages read in order from the place where they begin, and no further than they go. The planner cannot
// know that this is best: it takes all subscriptions to be as busy as the average, and knows nothing yet of a partition
// that has just come into use. Since the plan is always the same, a connection makes it once; to make it anew, or to
// compile it, takes longer than to run it.
func alongIndexes(config *pgxpool.Config) {
	for _, name := range [...]string{
		"enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashjoin", "enable_mergejoin", "jit",
	} {
		parameter(config, name, "off")
	}
	parameter(config, "plan_cache_mode", "force_generic_plan")
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
}

// pool makes a pool whose statements the server itself ends should our request to do so not reach it.
func pool(base *pgxpool.Config, connections int, timeout time.Duration) (*pgxpool.Pool, error) {
	config := base.Copy()
	config.MaxConns = int32(connections) //nolint:gosec // bounded above
	config.MinConns, config.MinIdleConns = 0, 0
	milliseconds := strconv.FormatInt((timeout + time.Second).Milliseconds(), 10)
	parameter(config, "statement_timeout", milliseconds)
	parameter(config, "idle_in_transaction_session_timeout", milliseconds)
	p, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("make a pool of connections to PostgreSQL: %w", err)
	}
	return p, nil
}

// Close ends the connections, once the calls under way have ended. Those of a server that does not answer may end after
// it: it takes closeTimeout at most.
func (s *Store) Close() {
	var closing sync.WaitGroup
	closing.Go(s.readers.Close)
	closing.Go(s.writers.Close)
	closed := make(chan struct{})
	go func() {
		closing.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}
