// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"nexus.io/webhooks/test/stack"
)

const (
	// pace of the events: 500 a second.
	pace = 2 * time.Millisecond
	// patience of a publisher, which then does not know what became of its event.
	patience = 10 * time.Second
	// atOnce bounds the requests that are under way to one dispatcher: one that hangs must not hold up the others' load.
	atOnce = 100
	// Of all events, those of such subscriptions.
	hangEvery, slowEvery, flakyEvery = 250, 10, 11
)

// kinds of subscriptions, by the project of their events, with the path of their endpoint.
var kinds = map[string]string{"healthy": "/ok/h", "slow": "/slow/100/s", "flaky": "/flaky/2/f", "hanging": "/hang/x"}

func kindOf(n int) string {
	switch {
	case n%hangEvery == 0:
		return "hanging"
	case n%slowEvery == 0:
		return "slow"
	case n%flakyEvery == 0:
		return "flaky"
	default:
		return "healthy"
	}
}

// load is what publishers do and know.
type load struct {
	client *http.Client

	mu       sync.Mutex
	accepted map[string][]string  // ids by kind
	begun    map[string]time.Time // when each was published
	refused  map[int]int          // by status; 0: no answer
	unsent   int                  // since too many were under way
	// Of publish, once it has returned: what it posted, and for how long.
	posted int
	lasted time.Duration
}

// catchUp bounds the events that are posted in one go, so that what is made up for finds places.
const catchUp = 5

// publish posts events until ctx ends, and waits for the answers. It goes by the clock: what a busy machine held up is
// made up for.
func (l *load) publish(ctx context.Context, dispatchers []*stack.Process) {
	places := make([]chan struct{}, len(dispatchers))
	for i := range places {
		places[i] = make(chan struct{}, atOnce)
	}
	var group sync.WaitGroup
	defer group.Wait()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	begun, n := time.Now(), 0
	defer func() { l.lasted = time.Since(begun) }()
	for {
		for range catchUp {
			if n >= int(time.Since(begun)/pace) {
				break
			}
			n++
			l.begin(ctx, &group, n, dispatchers[n%len(dispatchers)], places[n%len(dispatchers)])
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// begin posts an event if there is a place, and does not wait for the answer.
func (l *load) begin(ctx context.Context, group *sync.WaitGroup, n int, to *stack.Process, places chan struct{}) {
	select {
	case places <- struct{}{}:
	default:
		l.note(0, "", "")
		return
	}
	l.posted++
	group.Go(func() {
		defer func() { <-places }()
		l.post(context.WithoutCancel(ctx), to, kindOf(n), fmt.Sprint("event-", n))
	})
}

// post publishes one event and notes what came of it.
func (l *load) post(ctx context.Context, to *stack.Process, kind, id string) {
	body := fmt.Sprintf(`{"id":%q,"type":"build.completed","source":"faults","data":{"project":%q}}`, id, kind)
	begun := time.Now()
	status, _, err := stack.Post(ctx, l.client, to.URL+"/api/v1/events", body)
	if err != nil {
		status = 0
	}
	l.note(status, kind, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun[id] = begun
}

func (l *load) note(status int, kind, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case id == "":
		l.unsent++
	case status == http.StatusAccepted:
		l.accepted[kind] = append(l.accepted[kind], id)
	default:
		l.refused[status]++
	}
}

func newLoad() *load {
	transport := &http.Transport{MaxIdleConnsPerHost: atOnce}
	return &load{
		client:   &http.Client{Transport: transport, Timeout: patience},
		accepted: map[string][]string{}, begun: map[string]time.Time{}, refused: map[int]int{},
	}
}
