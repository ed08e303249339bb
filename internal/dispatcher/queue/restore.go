package queue

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nexus.io/webhooks/internal/dispatcher/history"
)

//go:embed scripts/restore.lua
var restoreSource string

var (
	restoreScript     = newScript(library + functionOf("retry", retrySource) + restoreSource)
	restoreNextScript = nextOf(functionOf("retry", retrySource) + restoreSource)
)

// restored is what restore.lua takes of a record and its body: a payload whose key this call alone has.
func restored(r *history.Record, body []byte, replay string) []any {
	key, payload := r.EventID+"#"+replay, r.EventType+"\n"+string(body)
	return []any{packRecord(r, len(payload), key), key, payload}
}

// Restore tries a delivery anew, as Retry does, that left the history: from what another store kept of it.
func (q *Queue) Restore(ctx context.Context, r *history.Record, body []byte) (Changed, error) {
	replay, err := uuid.NewV7()
	if err != nil {
		return Changed{}, fmt.Errorf("make an id for the repetition of delivery %s: %w", r.ID, err)
	}
	s := q.shards[shardOf(r.SubscriptionID, len(q.shards))]
	shards := int64(len(q.shards))
	reply, err := q.run(ctx, restoreScript, s.keys, append([]any{
		"", r.ID, replay.String(), int64(q.MaxDeliveries) / shards, q.MaxBytes / shards, milliseconds(callMemory),
	}, restored(r, body, replay.String())...))
	if err != nil {
		return Changed{}, fmt.Errorf("retry delivery %s: %w", r.ID, err)
	}
	outcome := ChangeOutcome(number(reply[0]))
	if outcome != Requeued {
		return Changed{outcome, r.ID}, nil
	}
	s.wakeUp()
	return Changed{Requeued, text(reply[1])}, nil
}

// outcomes of a record are what parseEnded reads.
var outcomes = map[history.Status]string{history.Success: "s", history.Failed: "f", history.Canceled: "c"}

// packRecord is a record as scripts/lib.lua has it.
func packRecord(r *history.Record, size int, key string) string {
	attempts := "0"
	if last := r.LastAttempt(); last != nil {
		attempts = strconv.Itoa(last.Number)
	}
	if r.Round > 1 || r.ReplayOf != "" {
		attempts += fmt.Sprintf(":0:%d:%s:", r.Round-1, r.ReplayOf)
	}
	head := strings.Join([]string{
		strconv.FormatInt(r.CompletedAt.UnixMilli(), 10), outcomes[r.Status], attempts, strconv.Itoa(size), r.Reason,
		r.Namespace, r.SubscriptionID, r.EventType, key,
	}, "|")
	packed := []byte(head + "\n")
	latest := r.Attempts[max(0, len(r.Attempts)-maxTries):]
	for i := range latest {
		a := &latest[i]
		var headers []history.Header
		for _, name := range slices.Sorted(maps.Keys(a.RequestHeaders)) {
			headers = append(headers, history.Header{Name: name, Value: a.RequestHeaders[name]})
		}
		packed = history.AppendAttempt(packed, a, r.RequestURL, headers)
	}
	return string(packed)
}
