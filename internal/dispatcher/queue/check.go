package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Finding is something about the Redis server that its operator should know.
type Finding struct {
	Message string
	Fatal   bool // events could be lost: the dispatcher must not start
}

// Check looks whether the server suits: reachable, 6.2 or newer, evicting nothing, writing to disk, and holding data of
// the same number of shards. An error means that it could not look (Redis is away).
func (q *Queue) Check(ctx context.Context) ([]Finding, error) {
	info, err := q.client.Info(ctx, "server", "memory", "persistence").Result()
	if err != nil {
		return nil, fmt.Errorf("ask Redis for its state: %w", unavailable(err))
	}
	fields := parseInfo(info)
	findings := checkVersion(fields["redis_version"])
	findings = append(findings, checkMemory(fields)...)
	findings = append(findings, checkPersistence(fields)...)
	layout, err := q.checkLayout(ctx)
	if err != nil {
		return nil, err
	}
	return append(findings, layout...), nil
}

func parseInfo(info string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

func checkVersion(version string) []Finding {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return nil // servers that only speak the protocol do not say
	}
	major, _ := strconv.Atoi(parts[0])
	minor, _ := strconv.Atoi(parts[1])
	if major > 6 || (major == 6 && minor >= 2) {
		return nil
	}
	return []Finding{{fmt.Sprintf("Redis %s is too old: use 6.2 or newer", version), true}}
}

func checkMemory(fields map[string]string) []Finding {
	policy := fields["maxmemory_policy"]
	if limit := fields["maxmemory"]; limit == "" || limit == "0" || policy == "noeviction" {
		return nil
	}
	return []Finding{{fmt.Sprintf("maxmemory-policy is %s, so a full Redis would drop accepted events: "+
		"set maxmemory-policy noeviction", policy), true}}
}

func checkPersistence(fields map[string]string) []Finding {
	if fields["aof_enabled"] != "0" {
		return nil
	}
	return []Finding{{"appendonly is off: a restart of Redis loses what came since its last snapshot; " +
		"set appendonly yes", false}}
}

func (q *Queue) checkLayout(ctx context.Context) ([]Finding, error) {
	key := layoutKey(q.Prefix)
	err := q.client.SetArgs(ctx, key, q.Shards, redis.SetArgs{Mode: "NX"}).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("write the queue's layout: %w", unavailable(err))
	}
	shards, err := q.client.Get(ctx, key).Int()
	if err != nil {
		return nil, fmt.Errorf("read the queue's layout: %w", unavailable(err))
	}
	if shards == q.Shards {
		return nil, nil
	}
	return []Finding{{fmt.Sprintf("Redis holds a queue of %d shards but %d are set: set the former, "+
		"or let it run empty and delete the key %s", shards, q.Shards, key), true}}, nil
}
