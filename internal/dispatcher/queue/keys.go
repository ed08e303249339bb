package queue

import (
	"hash/fnv"
	"strconv"
)

// keys builds the names of a shard's keys. All share the hash tag, so that Redis Cluster keeps a shard on one node.
// The scripts build the same names from the prefix; scripts/lib.lua says what each holds.
type keys struct{ prefix string }

func newKeys(prefix string, shard int) keys {
	return keys{prefix: prefix + ":{" + prefix + strconv.Itoa(shard) + "}:"}
}

// declared are the keys that a script names to the server. The second is never there: while Redis Cluster moves a slot
// from one node to another, key by key, either node refuses what names a key that it has not. Otherwise a script, whose
// other keys no node knows beforehand, would run on a part of the shard.
func (k keys) declared() []string { return []string{k.ready(), k.prefix + "never"} }

func (k keys) ready() string      { return k.prefix + "ready" }
func (k keys) deliveries() string { return k.prefix + "deliveries" }
func (k keys) totals() string     { return k.prefix + "totals" }
func (k keys) types() string      { return k.prefix + "types" }
func (k keys) subs() string       { return k.prefix + "subs" }
func (k keys) dirty() string      { return k.prefix + "dirty" }
func (k keys) urgent() string     { return k.prefix + "urgent" }

// operations are those under way, and operation is what each is; they are kept in the first shard alone. operationLeft
// are the deliveries of one that are to be done in this shard, operationCounts how many were. operator is who is at it.
func (k keys) operations() string               { return k.prefix + "ops" }
func (k keys) operation(id string) string       { return k.prefix + "op:" + id }
func (k keys) operator(id string) string        { return k.prefix + "op:" + id + ":operator" }
func (k keys) operationLeft(id string) string   { return k.prefix + "op:" + id + ":left" }
func (k keys) operationCounts(id string) string { return k.prefix + "op:" + id + ":counts" }

// wake is the channel on which a sleeping dispatcher hears that there is work for it.
func (k keys) wake(dispatcher string) string { return k.prefix + "wake:" + dispatcher }

// layoutFormat tells what the scripts write. Another one takes a queue that is empty: what it finds it would misread.
const layoutFormat = 2

// layoutKey holds the format and the number of shards that the data was written with.
func layoutKey(prefix string) string { return prefix + ":layout" }

// shardOf places a subscription, or the first record of an event, on a shard.
func shardOf(id string, shards int) int {
	if shards == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return int(h.Sum32() % uint32(shards)) //nolint:gosec // bounded by Options: 1 to 1,024 shards
}
