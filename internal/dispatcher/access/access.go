// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kuberest "k8s.io/client-go/rest"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// Options of an Authenticator. Config, Audience and Registerer are required.
type Options struct {
	// Config connects to the Kubernetes API, as somebody who may create TokenReviews and SubjectAccessReviews.
	Config *kuberest.Config
	// Audience is what a token must be made for: one that was made for others is refused, since they could show it here.
	Audience string
	// Fresh is how long a yes counts without another look. Default: 10 seconds.
	Fresh time.Duration
	// Refused is how long a no counts. Default: 3 seconds, or Fresh where that is less.
	Refused time.Duration
	// Outage is how long after the last look a yes counts while the Kubernetes API is away; below Fresh, not at all.
	Outage time.Duration
	// Most bounds the callers that are remembered, and twice as many answers to what they may do. Default: 10,000.
	Most       int
	Registerer prometheus.Registerer
	Logger     *slog.Logger // slog.Default() when nil
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

const (
	// DefaultAudience is the audience that publishers ask their tokens for.
	DefaultAudience = "nexus-webhooks"

	defaultFresh   = 10 * time.Second
	defaultRefused = 3 * time.Second
	defaultMost    = 10_000
)

func (o *Options) setDefaults() {
	o.Fresh = cmp.Or(o.Fresh, defaultFresh)
	o.Refused = cmp.Or(o.Refused, min(defaultRefused, o.Fresh))
	o.Most = cmp.Or(o.Most, defaultMost)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Authenticator knows callers by their bearer tokens. It is for any number of goroutines.
type Authenticator struct {
	options   Options
	reviews   *reviews
	strangers *strangers
	tokens    *memory[tokenSum, *caller]
	decisions *memory[decision, struct{}]
}

// New makes an Authenticator. It asks the Kubernetes API nothing until somebody calls.
func New(o Options) (*Authenticator, error) {
	if o.Config == nil || o.Audience == "" || o.Registerer == nil {
		return nil, errors.New("access needs the way to the Kubernetes API, an audience and a registerer")
	}
	o.setDefaults()
	m := newMetrics()
	reviews, err := newReviews(o, m)
	if err != nil {
		return nil, err
	}
	t := times{fresh: o.Fresh, refused: o.Refused, outage: o.Outage}
	a := &Authenticator{
		options: o, reviews: reviews, strangers: newStrangers(o.Now),
		tokens:    newMemory[tokenSum, *caller](t, o.Most, o.Now, m.stale.Inc),
		decisions: newMemory[decision, struct{}](t, 2*o.Most, o.Now, m.stale.Inc),
	}
	m.register(o.Registerer, func() float64 { return float64(a.tokens.yes.len()) })
	return a, nil
}

// tokenSum stands for a token.
type tokenSum [sha256.Size]byte

// usualToken is above what tokens of ServiceAccounts have, which are then copied within the stack.
const usualToken = 2 << 10

func sumOf(token string) tokenSum {
	var buffer [usualToken]byte
	if len(token) > usualToken {
		return sha256.Sum256([]byte(token))
	}
	return sha256.Sum256(buffer[:copy(buffer[:], token)])
}

func (s tokenSum) flight() string { return string(s[:]) }

// Authenticate tells who sent a request: 401 where the token is none or not good, 429 where too many unknown tokens
// came, 503 where the Kubernetes API is away and the caller is not known from before.
func (a *Authenticator) Authenticate(r *http.Request) (rest.Caller, *rest.Problem) {
	token, problem := bearer(r.Header)
	if problem != nil {
		return nil, problem
	}
	sum := sumOf(token)
	found, verdict := a.tokens.recall(sum)
	switch verdict {
	case allowed:
		return found, nil
	case allowedDue:
		a.tokens.renew(sum, a.known(sum, token))
		return found, nil
	case refused:
		return nil, a.notGood()
	case unsettled:
	}
	if !tokenLike(token) {
		return nil, malformed()
	}
	found, err := a.look(r, sum, token)
	if err != nil {
		return nil, a.problem(err)
	}
	return found, nil
}

// look has a token reviewed that is unknown, or not known well enough.
func (a *Authenticator) look(r *http.Request, sum tokenSum, token string) (*caller, error) {
	if a.tokens.isKnown(sum) {
		return a.tokens.ask(r.Context(), sum, a.known(sum, token))
	}
	return a.tokens.ask(r.Context(), sum, a.unknown(sum, token, addressOf(r)))
}

// known reviews the token of somebody who was known before: that must work while strangers flood us.
func (a *Authenticator) known(sum tokenSum, token string) review[*caller] {
	return func(ctx context.Context) (*caller, time.Time, error) { return a.reviewToken(ctx, sum, token) }
}

// unknown reviews the token of a stranger, once it is its turn. Who shows one many times at once costs one review, and
// who hangs up before its end is counted all the same.
func (a *Authenticator) unknown(sum tokenSum, token string, from netip.Prefix) review[*caller] {
	return func(ctx context.Context) (found *caller, ends time.Time, err error) {
		end := a.strangers.look(from)
		if end == nil {
			a.reviews.metrics.count(reviewToken, outcomeLimited)
			return nil, time.Time{}, errBusy
		}
		defer func() { end(errors.Is(err, errRefused)) }()
		leave, err := a.strangers.enter(ctx)
		if err != nil {
			a.reviews.metrics.count(reviewToken, outcomeLimited)
			return nil, time.Time{}, err
		}
		defer leave()
		return a.reviewToken(ctx, sum, token)
	}
}

func (a *Authenticator) reviewToken(ctx context.Context, sum tokenSum, token string) (*caller, time.Time, error) {
	user, err := a.reviews.token(ctx, token)
	if err != nil {
		return nil, time.Time{}, err
	}
	c := newCaller(a, *user)
	if before := a.tokens.yes.get(sum, a.options.Now()); before != nil {
		c.asks = before.value.asks // a new look does not refill it
	}
	return c, expiry(token), nil
}

const (
	retryAway = 5 * time.Second
	retryBusy = time.Second
)

// problem is the answer to somebody whose token could not be reviewed, or is not good.
func (a *Authenticator) problem(err error) *rest.Problem {
	switch {
	case errors.Is(err, errRefused):
		return a.notGood()
	case errors.Is(err, errBusy):
		return rest.New(http.StatusTooManyRequests, "more tokens that are not known yet came than can be looked at: "+
			"send this again in a moment").Retry(retryBusy)
	default:
		return rest.New(http.StatusServiceUnavailable, "the Kubernetes API cannot be asked just now who you are, and "+
			"nothing was done: send this again later").Retry(retryAway)
	}
}

func (a *Authenticator) notGood() *rest.Problem {
	return rest.New(http.StatusUnauthorized, fmt.Sprintf("the bearer token is not good here: it expired, was revoked, or "+
		"was not made for the audience %q. Mount a projected ServiceAccount token with this audience, or try "+
		"kubectl create token NAME --audience=%s", a.options.Audience, a.options.Audience))
}
