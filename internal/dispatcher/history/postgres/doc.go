// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package postgres keeps the delivery history in PostgreSQL: complete, for a number of days.
//
// It promises that a batch which is written again (its answer was lost) changes nothing, that one record which cannot
// be stored does not keep the others from it, that the schema is set up and moved on by one replica at a time, that
// partitions are there before they are needed and go when their time has come, and that no call outlives its bound or
// takes more connections than its pool has. PostgreSQL may be away at any time, at the start too: calls then fail with
// history.ErrUnavailable, and work again once it is back.
//
// It is the only package that imports a client of PostgreSQL. It must not know Redis, HTTP or Kubernetes.
package postgres
