// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/rest"
	"nexus.io/webhooks/internal/event"
)

// refusal translates what is wrong with a body.
func refusal(err error) *rest.Problem {
	var wrong *event.InvalidError
	var many *event.TooManyError
	switch {
	case errors.As(err, &wrong):
		p := rest.New(http.StatusUnprocessableEntity, wrong.Error())
		for _, f := range wrong.Fields {
			p.Field(f.Field, f.Message)
		}
		return p
	case errors.As(err, &many):
		return rest.New(http.StatusRequestEntityTooLarge, many.Error())
	default:
		return rest.New(http.StatusBadRequest, "the body is "+err.Error())
	}
}
