package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Finding is something about the Redis server that its operator should know.
type Finding struct {
	Message string
	Fatal   bool // events could be lost: the dispatcher must not start
}

// Check looks whether the server suits: reachable, 6.2 or newer, evicting nothing, with room for what the bounds allow,
// writing to disk, able to be as durable as is asked for, and holding data of the same number of shards. An error means
// that it could not look: Redis is away.
func (q *Queue) Check(ctx context.Context) ([]Finding, error) {
	var findings []Finding
	err := q.eachServer(ctx, func(ctx context.Context, server redis.Cmdable) error {
		info, err := server.Info(ctx).Result()
		if err != nil {
			return fmt.Errorf("ask Redis for its state: %w", unavailable(err))
		}
		fields := parseInfo(info)
		durable, err := q.Durability.check(ctx, server, fields)
		if err != nil {
			return fmt.Errorf("ask Redis how durable it is: %w", unavailable(err))
		}
		for _, finding := range slices.Concat(checkServer(fields), q.checkRoom(fields), durable) {
			if !slices.Contains(findings, finding) {
				findings = append(findings, finding)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	layout, err := q.checkLayout(ctx)
	if err != nil {
		return nil, err
	}
	return append(findings, layout...), nil
}

// eachServer calls do for the server, or for each master of a cluster, one after the other.
func (q *Queue) eachServer(ctx context.Context, do func(context.Context, redis.Cmdable) error) error {
	cluster, ok := q.client.(*redis.ClusterClient)
	if !ok {
		return do(ctx, q.client)
	}
	var one sync.Mutex
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		one.Lock()
		defer one.Unlock()
		return do(ctx, master)
	})
	if err != nil && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("ask the masters of the cluster: %w", unavailable(err))
	}
	return err
}

func checkServer(fields map[string]string) []Finding {
	findings := checkVersion(fields["redis_version"])
	findings = append(findings, checkMemory(fields)...)
	return append(findings, checkPersistence(fields)...)
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

// checkRoom looks whether a single server has room for all that may lie in it; those of a cluster share it.
func (q *Queue) checkRoom(fields map[string]string) []Finding {
	limit, err := strconv.ParseInt(fields["maxmemory"], 10, 64)
	_, cluster := q.client.(*redis.ClusterClient)
	if err != nil || limit == 0 || cluster || limit >= q.MaxBytes+q.MaxHistoryBytes+q.MaxOutboxBytes {
		return nil
	}
	return []Finding{{fmt.Sprintf("maxmemory is %d MiB, but the queue may take %d, its history %d and what waits to be "+
		"copied %d MiB: raise it or lower these bounds, otherwise a full Redis refuses events before they are reached",
		limit>>20, q.MaxBytes>>20, q.MaxHistoryBytes>>20, q.MaxOutboxBytes>>20), false}}
}

func checkPersistence(fields map[string]string) []Finding {
	if fields["aof_enabled"] != "0" {
		return nil
	}
	return []Finding{{"appendonly is off: a restart of Redis loses what came since its last snapshot; " +
		"set appendonly yes", false}}
}

func (q *Queue) checkLayout(ctx context.Context) ([]Finding, error) {
	key, want := layoutKey(q.Prefix), fmt.Sprintf("%d/%d", layoutFormat, q.Shards)
	layout, err := q.client.Get(ctx, key).Result()
	if errors.Is(err, redis.Nil) { // only then, since a full Redis refuses the write
		err = q.client.SetArgs(ctx, key, want, redis.SetArgs{Mode: "NX"}).Err()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("write the queue's layout: %w", unavailable(err))
		}
		layout, err = q.client.Get(ctx, key).Result()
	}
	if err != nil {
		return nil, fmt.Errorf("read the queue's layout: %w", unavailable(err))
	}
	if layout == want {
		return nil, nil
	}
	var format, shards int
	if read, _ := fmt.Sscanf(layout, "%d/%d", &format, &shards); read < 2 || format != layoutFormat {
		return []Finding{{fmt.Sprintf("Redis holds a queue that another version of the dispatcher wrote: let that version "+
			"run until it is empty, then delete the key %s", key), true}}, nil
	}
	return []Finding{{fmt.Sprintf("Redis holds a queue of %d shards but %d are set: set the former, "+
		"or let it run empty and delete the key %s", shards, q.Shards, key), true}}, nil
}
