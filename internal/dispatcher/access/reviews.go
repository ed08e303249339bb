// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	kuberest "k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	resourceEvents = "events"

	// maxUnderWay bounds the reviews of known callers at once.
	maxUnderWay   = 32
	complainEvery = time.Minute
)

var group = v1alpha1.GroupVersion.Group

// reviews asks the Kubernetes API.
type reviews struct {
	tokens    authenticationclient.TokenReviewInterface
	accesses  authorizationclient.SubjectAccessReviewInterface
	audience  string
	underWay  places
	metrics   *metrics
	log       *slog.Logger
	complains *rate.Sometimes
}

func newReviews(o Options, m *metrics) (*reviews, error) {
	config := kuberest.CopyConfig(o.Config)
	config.QPS = -1 // the limits are here; waiting in the client would only hide them
	authentication, err := authenticationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	authorization, err := authorizationclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return &reviews{
		tokens: authentication.TokenReviews(), accesses: authorization.SubjectAccessReviews(), audience: o.Audience,
		underWay: make(places, maxUnderWay), metrics: m, log: o.Logger,
		complains: &rate.Sometimes{Interval: complainEvery},
	}, nil
}

// places bounds how many do something at once.
type places chan struct{}

// take waits for a place, which the returned function gives back.
func (p places) take(ctx context.Context) (leave func(), err error) {
	select {
	case p <- struct{}{}:
		return func() { <-p }, nil
	case <-ctx.Done():
		return nil, errBusy
	}
}

// token returns whom a token stands for, errRefused if for nobody.
func (r *reviews) token(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	leave, err := r.underWay.take(ctx)
	if err != nil {
		r.metrics.count(reviewToken, outcomeLimited)
		return nil, err
	}
	defer leave()
	answer, err := r.tokens.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{r.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, r.failed(reviewToken, err)
	}
	// A server that knows nothing of audiences says yes and names none.
	if !answer.Status.Authenticated || !slices.Contains(answer.Status.Audiences, r.audience) {
		r.metrics.count(reviewToken, outcomeRefused)
		return nil, errRefused
	}
	r.metrics.count(reviewToken, outcomeAllowed)
	return &answer.Status.User, nil
}

// access returns errRefused where the subject may not do it.
func (r *reviews) access(ctx context.Context, spec authorizationv1.SubjectAccessReviewSpec) error {
	leave, err := r.underWay.take(ctx)
	if err != nil {
		r.metrics.count(reviewAccess, outcomeLimited)
		return err
	}
	defer leave()
	answer, err := r.accesses.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return r.failed(reviewAccess, err)
	case !answer.Status.Allowed:
		r.metrics.count(reviewAccess, outcomeRefused)
		return errRefused
	}
	r.metrics.count(reviewAccess, outcomeAllowed)
	return nil
}

func (r *reviews) failed(kind string, err error) error {
	r.metrics.count(kind, outcomeFailed)
	r.complains.Do(func() {
		r.log.Warn("The Kubernetes API cannot be asked who callers are and what they may do; those it knew go on for a "+
			"while", slog.String("review", kind), slog.Any("error", err))
	})
	return fmt.Errorf("%w: %w", errAway, err)
}
