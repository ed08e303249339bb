package queue

import "time"

// Target is one delivery to be: an event for one subscription.
type Target struct {
	SubscriptionID string
	DeliveryID     string // a UUID, the value of X-Nexus-Delivery on every attempt
}

// Publication is an event with its matches, ready to be queued.
type Publication struct {
	EventID   string
	EventType string
	Body      []byte // the rendered request body, sent as it is on every attempt
	// Fingerprint identifies the content when the publisher chose the event id (or an idempotency key): the same
	// EventID again within the de-duplication time gives the first receipt, with another Fingerprint a conflict.
	// Empty: the id is our own and cannot come twice.
	Fingerprint string
	Targets     []Target
}

// Outcome says what became of a Publication.
type Outcome int

// What becomes of a publication.
const (
	Queued    Outcome = iota // every target is in the queue (or recorded as failed: backlog full)
	Duplicate                // seen before: Targets are those of the first time, nothing was queued
	Conflict                 // the same id was seen with another fingerprint, nothing was queued
	Full                     // the queue as a whole is full, nothing was queued
	// Unqueued: Redis did not say that all of it is queued. The publisher must send it again; with a Fingerprint, only
	// what is missing is queued then.
	Unqueued
)

// Receipt answers a Publication.
type Receipt struct {
	Outcome Outcome
	Targets []Target
	// BacklogFull names the subscriptions whose own backlog was full: their delivery is recorded as failed.
	BacklogFull []string
}

// Lease is a timed claim on one delivery.
type Lease struct {
	DeliveryID     string
	SubscriptionID string
	EventID        string
	EventType      string
	Attempt        int // number of this attempt, from 1
	Base           int // attempts that the retry budget does not count: those before somebody asked for a retry
	CreatedAt      time.Time
	Body           []byte // shared with other leases of the same event: read only
	Token          int64  // fencing token: a settlement with an older one changes nothing
	// Deadline is when the claim ends by this process' monotonic clock unless extended; no request may start after it.
	Deadline time.Time

	shard   int
	holding *holding
}

// Result says how an attempt ended for the queue.
type Result int

// How an attempt ends.
const (
	Done    Result = iota // the endpoint took it
	Retry                 // try again after RetryAfter
	Fail                  // finished without success
	Release               // nothing was sent: back to the head of its queue, no attempt counted
)

// Settlement ends a lease.
type Settlement struct {
	Lease      Lease
	Result     Result
	RetryAfter time.Duration // from now by Redis' clock; with Retry (and with Release: not before that)
	// ArrivedAgo is the time since the endpoint got the request, by which the rate limit charges it. Zero: just now.
	ArrivedAgo time.Duration
	Duration   time.Duration // of the whole exchange, for the latency sum
	StatusCode int           // 0 where there was no answer
	Reason     string        // closed set (delivery.Reason), "" on success
	Error      string        // for people, without secrets, cut to 256 bytes
	// Attempt is the attempt as the history keeps it: AppendAttempt made it. The queue does not look into it.
	Attempt []byte

	repeated bool // brought before, but the answer got lost: it may be settled already
}

// Reasons of a failed attempt that say something of the endpoint as a whole, beside those that its sender chooses.
const (
	ReasonGone         = "gone"          // it answered 410
	ReasonEgressDenied = "egress_denied" // the egress policy forbids its address
)

// FailingAfter is how many failed attempts in a row make a subscription fail: then one place in flight must do, until a
// success. scripts/lib.lua has the same number.
const FailingAfter = 3

// Limits are what the queue must know of a subscription.
type Limits struct {
	SubscriptionID string
	Namespace      string // of the subscription, for the history
	Generation     int64  // an older generation cannot undo a newer one
	RatePerMinute  int
	MaxInFlight    int
	MaxBacklog     int
	Active         bool // false: takes nothing new, sends nothing of what it has
	Paused         bool // true: takes and keeps, sends nothing (spec.paused, or it cannot be sent just now)
}

// Statistics of one subscription, as the settling scripts counted them.
type Statistics struct {
	SubscriptionID      string
	Successful          int64
	Failed              int64
	Canceled            int64
	Pending             int64 // waiting or leased, retrying included
	Retrying            int64 // of those, the ones that failed at least once
	ConsecutiveFailures int64 // failed attempts since the last success
	LastAttempt         time.Time
	LastSuccess         time.Time
	LastStatusCode      int
	LastReason          string // of the last failed attempt, "" after a success
	LastError           string
	LatencySum          time.Duration // over LatencyCount attempts that got an answer
	LatencyCount        int64
	BacklogFull         bool  // the latest publish found the backlog full
	Version             int64 // grows with every change
}
