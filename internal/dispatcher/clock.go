// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	lookAtClock = time.Minute
	// clockTolerance is what clocks may differ by before that is told. Consumers that check X-Nexus-Timestamp mostly
	// allow five minutes.
	clockTolerance = 10 * time.Second
	// uncertain is how long Redis may take to answer so that its time tells anything.
	uncertain       = time.Second
	complainOfClock = 10 * time.Minute
)

// clock compares this machine's clock with that of Redis. The queue goes by the latter alone, so that a wrong clock
// loses, doubles and delays nothing; but X-Nexus-Timestamp is this machine's, and consumers may refuse one that is off.
type clock struct {
	redis    func(context.Context) (time.Time, error)
	now      func() time.Time
	log      *slog.Logger
	skew     prometheus.Gauge
	complain rate.Sometimes
	off      bool // when it was looked at last
}

func newClock(
	redis func(context.Context) (time.Time, error), registerer prometheus.Registerer, log *slog.Logger,
) *clock {
	c := &clock{
		redis: redis, now: time.Now, log: log,
		skew: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "nexus_webhook_clock_skew_seconds",
			Help: "This machine's clock minus that of Redis. X-Nexus-Timestamp is off by as much, if it is this one that is " +
				"wrong, and consumers may refuse what is signed.",
		}),
		complain: rate.Sometimes{First: 1, Interval: complainOfClock},
	}
	registerer.MustRegister(c.skew)
	return c
}

// run looks at once and then now and then, until ctx ends.
func (c *clock) run(ctx context.Context) {
	tick := time.NewTicker(lookAtClock)
	defer tick.Stop()
	for {
		c.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *clock) look(ctx context.Context) {
	begun := c.now()
	there, err := c.redis(ctx)
	took := c.now().Sub(begun)
	if err != nil || took > uncertain {
		return // that Redis is away or slow is told elsewhere
	}
	skew := begun.Add(took / 2).Sub(there)
	c.skew.Set(skew.Seconds())
	wasOff := c.off
	c.off = skew.Abs() > clockTolerance
	switch {
	case c.off:
		c.complain.Do(func() {
			c.log.WarnContext(ctx, "The clocks of this machine and of Redis differ, and consumers may refuse signatures whose "+
				"timestamp is off: have both follow a time server", "ahead", skew.Round(time.Millisecond).String())
		})
	case wasOff:
		c.log.InfoContext(ctx, "The clocks of this machine and of Redis agree again")
		c.complain = rate.Sometimes{First: 1, Interval: complainOfClock}
	}
}
