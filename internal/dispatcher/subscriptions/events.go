// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"fmt"
	"regexp"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// eventPattern is what the resource takes as an entry of spec.events; another form is the Kubernetes API's to refuse.
var eventPattern = regexp.MustCompile(`^([a-z0-9_]+\.([a-z0-9_]+|\*)|\*)$`)

// checkEvents names the types that this cluster does not know: a subscription to them would never get an event.
func (h *handler) checkEvents(p *rest.Problem, events []string) {
	for i, e := range events {
		if eventPattern.MatchString(e) && !h.Catalogue.KnowsPattern(e) {
			p.Field(fmt.Sprintf("events[%d]", i), h.unknownType(e))
		}
	}
}

func (h *handler) unknownType(t string) string {
	if near := h.Catalogue.Nearest(t); near != "" {
		return fmt.Sprintf("%.128q is not a known event type; did you mean %q?", t, near)
	}
	return fmt.Sprintf("%.128q is not a known event type; GET /api/v1/event-types lists them", t)
}
