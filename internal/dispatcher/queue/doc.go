// Package queue keeps every accepted event in Redis until each of its deliveries has ended.
//
// It promises that a delivery is in exactly one place (waiting, or leased with a fencing token), that a lease that runs
// out comes back by itself, that no subscription takes more than its places and its share, that a rate limit holds over
// all replicas in any 60 seconds, and that statistics change in the same step as the state (Audit proves it).
// It knows limits, not routes: nothing of URLs, secrets, HTTP or Kubernetes.
//
// All steps are Lua scripts (scripts/, each with its contract). One goroutine for each shard gathers what publishers
// and senders bring meanwhile and sends it in one round trip, which ends with leasing what may run now.
package queue
