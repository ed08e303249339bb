// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"log/slog"

	"golang.org/x/time/rate"
)

// calm is the log of the election. It passes on what goes wrong, now and then and as a warning; the rest is of interest
// to nobody: candidates try again every few seconds, for as long as they live.
type calm struct {
	slog.Handler
	sometimes *rate.Sometimes
}

func (c calm) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && c.Handler.Enabled(ctx, slog.LevelWarn)
}

func (c calm) Handle(ctx context.Context, r slog.Record) (err error) {
	c.sometimes.Do(func() {
		warning := slog.NewRecord(r.Time, slog.LevelWarn, "Standing for election goes on later", r.PC)
		warning.AddAttrs(slog.String("during", r.Message))
		r.Attrs(func(a slog.Attr) bool {
			warning.AddAttrs(a)
			return true
		})
		err = c.Handler.Handle(ctx, warning)
	})
	return err
}

func (c calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	return calm{c.Handler.WithAttrs(attrs), c.sometimes}
}

func (c calm) WithGroup(name string) slog.Handler {
	return calm{c.Handler.WithGroup(name), c.sometimes}
}
