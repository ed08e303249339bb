package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// node is the server that holds a shard now: the one there is, or a master of the Cluster. It is asked without
// go-redis' way of following a slot, which would send a broken call again without telling, and a WAIT to any node.
func (q *Queue) node(ctx context.Context, k keys) (redis.Cmdable, error) {
	cluster, ok := q.client.(*redis.ClusterClient)
	if !ok {
		return q.client, nil
	}
	node, err := cluster.MasterForKey(ctx, k.ready())
	if err != nil {
		return nil, fmt.Errorf("find the node of the Cluster: %w", err)
	}
	return node, nil
}

const (
	// A node that has given a slot away names its new owner, and a look at the Cluster takes milliseconds. What is not
	// found within the looks is unavailable, and the next round trip looks anew.
	maxLooks  = 10
	lookAfter = 20 * time.Millisecond
)

// elsewhere tells whether a call was refused since another node has the slot, so that nothing was executed. Then, and
// where the node may be gone, it has the Cluster looked at.
func (q *Queue) elsewhere(ctx context.Context, err error) bool {
	cluster, ok := q.client.(*redis.ClusterClient)
	if !ok || err == nil || redis.HasErrorPrefix(err, "NOSCRIPT") {
		return false
	}
	cluster.ReloadState(ctx)
	if _, moved := redis.IsMovedError(err); !moved {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(lookAfter):
		return true
	}
}
