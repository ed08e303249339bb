// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// maxProbed bounds the index entries that a page's probes may read. Beyond, a page is read in order of time and what
// does not match is left out: so many keys match often.
const maxProbed = 50_000

// query is a statement in the making.
type query struct {
	args []any
	from strings.Builder
}

// arg adds an argument and returns its placeholder.
func (q *query) arg(value any) string {
	q.args = append(q.args, value)
	return "$" + strconv.Itoa(len(q.args))
}

// index says which index to read, and at which keys; the zero value is that of the ids alone.
type index struct {
	column string
	keys   []string
	byKey  bool
}

// choose takes the index that leaves the least to look at.
func choose(f *history.Filter) index {
	switch {
	case f.EventID != "":
		return index{"event_id", []string{f.EventID}, true}
	case f.SubscriptionIDs != nil && probes(f, f.SubscriptionIDs):
		return index{"subscription_id", f.SubscriptionIDs, true}
	case f.Namespaces != nil && probes(f, f.Namespaces):
		return index{"namespace", f.Namespaces, true}
	case f.EventType != "":
		return index{"event_type", []string{f.EventType}, true}
	}
	return index{}
}

func probes(f *history.Filter, keys []string) bool {
	return len(keys)*len(statuses(f))*(f.PageSize()+1) <= maxProbed
}

func statuses(f *history.Filter) []string {
	if len(f.Statuses) == 0 {
		return distinct(history.Statuses())
	}
	return distinct(f.Statuses)
}

// distinct are the values, each once.
func distinct[T ~string](values []T) []string {
	texts := make([]string, len(values))
	for i := range values {
		texts[i] = string(values[i])
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// span is a range of ids: from low on, and before high.
type span struct{ low, high history.UUID }

const (
	firstDays = 8 // of the first span; the next are four times as long
	growth    = 4
)

// spans divides the ids that f leaves, newest first, where newest is the latest day that has a partition. Planning a
// query takes longer with the number of partitions that it may touch, and most pages are full after a few.
func spans(f *history.Filter, newest day) []span {
	low, high := f.Bounds()
	begin := min(newest-daysAhead, dayOf(high.Time())) + 1
	var divided []span
	for days := day(firstDays); days < MaxRetentionDays; days *= growth {
		begin -= days
		bound := history.FirstID(begin.start())
		if bytes.Compare(bound[:], low[:]) <= 0 {
			break
		}
		divided = append(divided, span{bound, high})
		high = bound
	}
	return append(divided, span{low, high})
}

// statement is what f selects of a span, at most limit rows.
//
// Each key and status is a place in an index behind which its ids lie in order. So the newest of each are read there,
// the newest of them all are picked, and only those rows are fetched.
func statement(f *history.Filter, in span, limit int) (sql string, args []any) {
	q := &query{}
	within := "d.id >= " + q.arg([16]byte(in.low)) + " AND d.id < " + q.arg([16]byte(in.high))
	most := q.arg(limit)
	i := choose(f)
	if !i.byKey && len(statuses(f)) == len(history.Statuses()) {
		where := append([]string{within}, q.conditions(f, "")...)
		return "SELECT " + dColumns + " FROM nexus_webhooks.deliveries d WHERE " + strings.Join(where, " AND ") +
			" ORDER BY d.id DESC LIMIT " + most, q.args
	}
	where := []string{"d.status = s.status", within}
	q.from.WriteString("unnest(" + q.arg(statuses(f)) + "::text[]::nexus_webhooks.delivery_status[]) AS s (status)")
	if i.byKey {
		q.from.WriteString(" CROSS JOIN unnest(" + q.arg(distinct(i.keys)) + "::text[]) AS k (key)")
		where = append(where, "d."+i.column+" = k.key")
	}
	where = append(where, q.conditions(f, i.column)...)
	return `
SELECT ` + dColumns + `
FROM (
    SELECT p.id FROM ` + q.from.String() + ` CROSS JOIN LATERAL (
        SELECT d.id FROM nexus_webhooks.deliveries d WHERE ` + strings.Join(where, " AND ") + `
        ORDER BY d.id DESC LIMIT ` + most + `) p
    ORDER BY p.id DESC LIMIT ` + most + `) p
JOIN nexus_webhooks.deliveries d ON d.id = p.id AND ` + within + `
ORDER BY d.id DESC`, q.args
}

// conditions are those of f beside time, status and the column of the index.
func (q *query) conditions(f *history.Filter, indexed string) []string {
	var where []string
	equal := func(column, value string) {
		if value != "" && column != indexed {
			where = append(where, "d."+column+" = "+q.arg(value))
		}
	}
	among := func(column string, values []string) {
		if values != nil && column != indexed {
			where = append(where, "d."+column+" = ANY("+q.arg(values)+"::text[])")
		}
	}
	equal("event_id", f.EventID)
	equal("event_type", f.EventType)
	among("subscription_id", f.SubscriptionIDs)
	among("namespace", f.Namespaces)
	return where
}
