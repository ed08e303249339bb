// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

// mostGrowth of a delivery's cost over that with one dispatcher and one Redis: what does not grow scales out.
const mostGrowth = 1.25

func scale(ctx context.Context, b *bench) error {
	if err := b.subscribe(ctx, single, 0, subscriptions); err != nil {
		return err
	}
	var table []column
	for _, masters := range []int{1, 3} {
		for _, dispatchers := range []int{1, 2, 4} {
			name := fmt.Sprintf("%d disp., %d Redis", dispatchers, masters)
			err := b.withRig(ctx, shape{dispatchers: dispatchers, masters: masters}, func(r *rig) error {
				f, err := r.run(ctx, name, load{kind: single, events: b.events / 2, groups: subscriptions})
				table = append(table, column{name, f})
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	first, last := table[0].figures.cost(), table[len(table)-1].figures.cost()
	b.atMost("4 dispatchers, 3 Redis masters: CPU of a delivery, times that with 1 and 1", last/first, mostGrowth,
		fmt.Sprintf("%.0f µs beside %.0f µs", last, first))
	printTable(table)
	return nil
}
