// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

const (
	// A caller may have asksBurst new questions at once, as for a list over many namespaces, and asksPerSecond over time.
	asksPerSecond = 100
	asksBurst     = 2000

	// No namespace and no object has a longer name.
	maxNamespace = 63
	maxName      = 253
)

// caller is somebody whose token is good.
type caller struct {
	*Authenticator
	user    authenticationv1.UserInfo
	subject [sha256.Size]byte // stands for all that a SubjectAccessReview is told of the user
	asks    *rate.Limiter
}

func newCaller(a *Authenticator, user authenticationv1.UserInfo) *caller {
	text, _ := json.Marshal(user) // text and maps of text: always possible, and maps come sorted
	return &caller{
		Authenticator: a, user: user, subject: sha256.Sum256(text), asks: rate.NewLimiter(asksPerSecond, asksBurst),
	}
}

// decision is what is asked of a SubjectAccessReview.
type decision struct {
	subject [sha256.Size]byte
	do      rest.Action
}

func (d decision) flight() string { return fmt.Sprintf("%s%q", d.subject[:], d.do) }

// May is the rest.Caller's.
func (c *caller) May(ctx context.Context, do rest.Action) error {
	if len(do.Namespace) > maxNamespace || len(do.Name) > maxName {
		return &rest.Denied{Reason: "there is no namespace and no object of such a long name"}
	}
	k := decision{c.subject, do}
	_, verdict := c.decisions.recall(k)
	switch verdict {
	case allowed:
		return nil
	case allowedDue:
		c.decisions.renew(k, c.review(do))
		return nil
	case refused:
		return c.denied(do)
	case unsettled:
	}
	if !c.decisions.isKnown(k) && !c.asks.AllowN(c.options.Now(), 1) {
		c.reviews.metrics.count(reviewAccess, outcomeLimited)
		return fmt.Errorf("%w: %w", rest.ErrUnknown, errBusy)
	}
	_, err := c.decisions.ask(ctx, k, c.review(do))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errRefused):
		return c.denied(do)
	default:
		return fmt.Errorf("%w: %w", rest.ErrUnknown, err)
	}
}

func (c *caller) review(do rest.Action) review[struct{}] {
	return func(ctx context.Context) (struct{}, time.Time, error) {
		return struct{}{}, forever, c.reviews.access(ctx, c.subjectAccess(do))
	}
}

func (c *caller) subjectAccess(do rest.Action) authorizationv1.SubjectAccessReviewSpec {
	extra := make(map[string]authorizationv1.ExtraValue, len(c.user.Extra))
	for k, v := range c.user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	return authorizationv1.SubjectAccessReviewSpec{
		User: c.user.Username, UID: c.user.UID, Groups: c.user.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: group, Verb: do.Verb, Resource: do.Resource, Subresource: do.Subresource,
			Namespace: do.Namespace, Name: do.Name,
		},
	}
}

// denied says what is missing, and which role has it.
func (c *caller) denied(do rest.Action) *rest.Denied {
	resource := do.Resource
	if do.Subresource != "" {
		resource += "/" + do.Subresource
	}
	reason := func(where, binding string) string {
		return fmt.Sprintf("%s may not %s %s of %s%s: that takes a %s to ClusterRole %s, or to another role with this "+
			"permission", c.user.Username, do.Verb, resource, group, where, binding, roleFor(do))
	}
	switch {
	case do.Namespace != "":
		return &rest.Denied{
			Reason:  reason(fmt.Sprintf(" in namespace %q", do.Namespace), "RoleBinding"),
			Unnamed: reason(" in the subscription's namespace", "RoleBinding"),
		}
	case do.Resource != resourceEvents:
		return &rest.Denied{Reason: reason(" in all namespaces", "ClusterRoleBinding")}
	default:
		return &rest.Denied{Reason: reason("", "ClusterRoleBinding")}
	}
}

// roleFor is the least of the roles of config/rbac that allows an action.
func roleFor(do rest.Action) string {
	switch {
	case do.Resource == resourceEvents:
		return "webhooks-event-publisher-role"
	case do.Verb == "get" || do.Verb == "list" || do.Verb == "watch":
		return "webhooks-webhooksubscription-viewer-role"
	default:
		return "webhooks-webhooksubscription-editor-role"
	}
}
