package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"nexus.io/webhooks/internal/dispatcher/history"
)

// Options of a Queue. A zero field takes the default that is named with it.
type Options struct {
	Client Client // required; Run and Publish use it, the caller closes it
	// Dispatcher names this process among the replicas; required, unique.
	Dispatcher string
	Prefix     string // of every key: "nexus"
	// Shards is how many parts the queue has, 1 to 1,024: 1. Only Redis Cluster has a use for more; it cannot change
	// while the data stays.
	Shards int
	// LeaseTime is how long a claim holds without being extended: 20 s. Deliveries of a dispatcher that died go on
	// after it.
	LeaseTime time.Duration
	// DeduplicationTime is how long an event id chosen by its publisher is remembered: 24 h.
	DeduplicationTime time.Duration
	// MaxDeliveries and MaxBytes bound what may be unfinished, over all shards: 1,000,000 and 1 GiB. Past them new
	// events are refused; accepted ones stay.
	MaxDeliveries int
	MaxBytes      int64
	// Durability is what Publish waits for: ByRedis.
	Durability Durability
	// MaxHistory, MaxHistoryAge and MaxHistoryBytes bound the history of deliveries that have ended: records of one
	// subscription, the time since a delivery was made, and the memory of records and bodies over all shards. 100, 24 h,
	// 256 MiB.
	MaxHistory      int
	MaxHistoryAge   time.Duration
	MaxHistoryBytes int64
	// MaxOutboxBytes bounds what waits to be copied elsewhere: past it the oldest goes and is counted. 0: nobody copies.
	MaxOutboxBytes int64
	// Archive has what left the history, for operations that retry it. nil: nobody keeps it.
	Archive    Archive
	Logger     *slog.Logger          // slog.Default()
	Registerer prometheus.Registerer // required
}

// Archive keeps what has ended for long; *postgres.Store is one.
type Archive interface {
	Get(ctx context.Context, id string) (history.Record, error) // or history.ErrNotFound
	Bodies(ctx context.Context, records []history.Record, maxBytes int) (map[history.BodyRef][]byte, error)
}

const (
	maxShards = 1024
	// fairShare is the least that a lease takes from a subscription, so that many waiting subscriptions do not make
	// every round trip touch one each.
	fairShare = 4
	// maxLease bounds the deliveries of one lease, and with them the time that Redis is held: about 2 ms.
	maxLease = 256
	// maxSettlements and maxTargets bound the other parts of a round trip alike.
	maxSettlements = 512
	maxTargets     = 500
	maxEvents      = 512
	maxBatchBytes  = 2 << 20 // which take Redis some 8 ms
	// maxSleep bounds how long an idle dispatcher sleeps: a wake-up that got lost costs at most this.
	maxSleep = 5 * time.Second
	// callMemory is how long a retry, or the latest publish call, can be repeated after its answer was lost.
	callMemory = 2 * time.Minute
)

// Queue is the Redis queue. Its methods may be called by many goroutines.
type Queue struct {
	Options
	client   Client
	instance string // names this Queue among all that ever publish
	shards   []*shard
	metrics  *metrics
	patience time.Duration // of a round trip: what Redis does later nobody hears

	walks chan struct{} // holds one token for each that looks through the unfinished deliveries
	begun chan struct{} // holds one token while an operation was begun here that nobody has looked at

	configured sync.Map // subscription id -> Limits, to configure again what Redis has forgotten

	room     sync.Mutex // guards the fields below
	consumer Consumer
	stopped  bool
	asked    reservation // what lease calls under way may bring, of all shards
	hungry   []*shard    // have work but got no room, longest waiting first
}

// Consumer sends what the queue leases to it.
type Consumer interface {
	// Room says how many deliveries and payload bytes more it takes now. What a delivery took must be free when its
	// settlement is brought, since that makes the queue ask.
	Room() (deliveries, bytes int)
	// Take starts sending them. It must not block.
	Take([]Lease)
}

// New checks the options and makes a Queue; it does not yet talk to Redis.
func New(o Options) (*Queue, error) {
	if o.Client == nil || o.Registerer == nil || o.Dispatcher == "" {
		return nil, errors.New("queue needs a client, a registerer and a dispatcher's name")
	}
	setDefaults(&o)
	if o.Shards < 1 || o.Shards > maxShards {
		return nil, fmt.Errorf("queue shards: %d is not in 1 to %d", o.Shards, maxShards)
	}
	if o.Durability.command(0) == nil && o.Durability != ByRedis {
		return nil, fmt.Errorf("durability: %q is none of %s, %s, %s", o.Durability, ByRedis, ByReplica, ByDisk)
	}
	q := &Queue{
		Options: o, client: o.Client, instance: uuid.NewString(), walks: make(chan struct{}, maxWalks),
		begun: make(chan struct{}, 1), patience: patienceOf(o.Client),
	}
	for i := range o.Shards {
		q.shards = append(q.shards, newShard(q, i))
	}
	q.metrics = newMetrics(q, o.Registerer)
	return q, nil
}

func setDefaults(o *Options) {
	setDefault(&o.Prefix, "nexus")
	setDefault(&o.Shards, 1)
	setDefault(&o.LeaseTime, 20*time.Second)
	setDefault(&o.Durability, ByRedis)
	setDefault(&o.DeduplicationTime, 24*time.Hour)
	setDefault(&o.MaxDeliveries, 1_000_000)
	setDefault(&o.MaxBytes, 1<<30)
	setDefault(&o.MaxHistory, 100)
	setDefault(&o.MaxHistoryAge, 24*time.Hour)
	setDefault(&o.MaxHistoryBytes, 256<<20)
	setDefault(&o.Logger, slog.Default())
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run leases for the consumer and settles what it brings back, until ctx ends; then it settles what was brought before
// and returns. Call StopLeasing first and let the consumer finish. Publish needs Run.
func (q *Queue) Run(ctx context.Context, consumer Consumer) error {
	q.room.Lock()
	q.consumer = consumer
	q.room.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range q.shards {
		group.Go(func() error { return s.run(ctx) })
		group.Go(func() error { return s.keepHistory(ctx) })
	}
	group.Go(func() error { return q.listen(ctx) })
	group.Go(func() error { return q.keepOperating(ctx) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// StopLeasing makes Run lease nothing more; settling and publishing go on.
func (q *Queue) StopLeasing() {
	q.room.Lock()
	q.stopped = true
	q.room.Unlock()
}

// listen hears on which shards there is work for this dispatcher. While it cannot, maxSleep bounds the delay.
func (q *Queue) listen(ctx context.Context) error {
	channels := make([]string, len(q.shards))
	byChannel := map[string]*shard{}
	for i, s := range q.shards {
		channels[i] = s.keys.wake(q.Dispatcher)
		byChannel[channels[i]] = s
	}
	sub := q.client.Subscribe(ctx, channels...)
	defer func() { _ = sub.Close() }()
	messages := sub.Channel()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			if s := byChannel[m.Channel]; s != nil {
				s.wakeUp()
			}
		}
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
