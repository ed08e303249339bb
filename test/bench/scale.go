// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

// mostGrowth of a delivery's cost over that with one dispatcher: what does not grow scales out.
const mostGrowth = 1.25

func scale(ctx context.Context, b *bench) error {
	if err := b.subscribe(ctx, single, 0, subscriptions); err != nil {
		return err
	}
	var table []column
	defer func() { printTable(table) }()
	for _, masters := range []int{1, 3} {
		for _, dispatchers := range []int{1, 2, 4} {
			name := fmt.Sprintf("%d disp., %d Redis", dispatchers, masters)
			err := b.withRig(ctx, shape{dispatchers: dispatchers, masters: masters}, func(r *rig) error {
				f, err := r.run(ctx, name, load{kind: single, events: b.events / 2, groups: subscriptions})
				if err == nil {
					table = append(table, column{name, f})
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	for i, masters := range []int{1, 3} {
		first, last := table[3*i].figures.cost(), table[3*i+2].figures.cost()
		name := fmt.Sprintf("Redis masters: %d: CPU of a delivery with 4 dispatchers, times that with 1", masters)
		b.ratioAtMost(name, last/first, mostGrowth, fmt.Sprintf("%.0f µs beside %.0f µs", last, first))
	}
	return nil
}
