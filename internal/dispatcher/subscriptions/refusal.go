// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// retryAway is when to ask again whether the Kubernetes API is back.
const retryAway = 5 * time.Second

// refusal translates why the Kubernetes API did not write a subscription.
func (h *handler) refusal(err error, namespace string) *rest.Problem {
	switch {
	case apierrors.IsInvalid(err):
		return invalid(err)
	case apierrors.IsNotFound(err):
		return rest.New(http.StatusNotFound, fmt.Sprintf("there is no namespace %q, or the resource "+
			"WebhookSubscription is not installed: choose another namespace by ?namespace=", namespace))
	case apierrors.IsForbidden(err):
		return rest.New(http.StatusForbidden, "the Kubernetes API does not let the dispatcher do it: "+err.Error())
	case apierrors.IsBadRequest(err):
		return rest.New(http.StatusBadRequest, "the Kubernetes API does not take it: "+err.Error())
	case apierrors.IsRequestEntityTooLargeError(err):
		return rest.New(http.StatusRequestEntityTooLarge, "the Kubernetes API does not take a resource so large")
	case apierrors.IsConflict(err):
		return busy()
	default:
		h.Logger.Warn("A subscription was not written, the Kubernetes API is away or refuses", "error", err)
		return rest.New(http.StatusServiceUnavailable, "the Kubernetes API is away or refuses just now, and nothing is "+
			"known to be done: look at the subscription, or send this again later").Retry(retryAway)
	}
}

// invalid names the fields that broke the resource's schema as this API calls them.
func invalid(err error) *rest.Problem {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return rest.New(http.StatusUnprocessableEntity, "the Kubernetes API does not take it: "+err.Error())
	}
	p := rest.New(http.StatusUnprocessableEntity, "")
	seen := map[rest.FieldError]bool{}
	for _, cause := range status.Status().Details.Causes {
		if cause.Field == "<nil>" && len(status.Status().Details.Causes) > 1 {
			continue // it only says that there may be more to say
		}
		found := rest.FieldError{Field: fieldOf(cause.Field), Message: messageOf(cause)}
		if !seen[found] {
			p.Field(found.Field, found.Message)
		}
		seen[found] = true
	}
	return p
}

// fieldOf translates a path within the resource.
func fieldOf(at string) string {
	at = strings.TrimPrefix(strings.TrimPrefix(at, "spec"), ".")
	for _, r := range renamed {
		if rest, is := strings.CutPrefix(at, r.spec); is && (rest == "" || rest[0] == '[') {
			return r.field + rest
		}
	}
	return snake(at)
}

// The forms of messages: of a value that is shown, and of a path that is repeated.
var (
	inBody    = regexp.MustCompile(`^\S+ in body (should|must)`)
	specField = regexp.MustCompile(`\bspec\.`)
	word      = regexp.MustCompile(`\b[a-z]+([A-Z][a-z]+)+\b`)
)

// messageOf says what would be right, without the value: whoever sent it knows it, and it may be long or secret.
func messageOf(cause metav1.StatusCause) string {
	message := cause.Message
	for _, kind := range []string{"Invalid value: ", "Too many: ", "Too long: ", "Forbidden: "} {
		if after, is := strings.CutPrefix(message, kind); is {
			message = withoutValue(after)
		}
	}
	if after, is := strings.CutPrefix(message, "Duplicate value"); is {
		message = "is there twice" + after
	}
	if message == "Required value" {
		message = "must be there"
	}
	message = inBody.ReplaceAllString(message, "$1")
	message = specField.ReplaceAllString(message, "")
	return word.ReplaceAllStringFunc(message, func(name string) string {
		if specNames[name] {
			return snake(name)
		}
		return name
	})
}

// withoutValue cuts the value off that an error of the Kubernetes API begins with.
func withoutValue(message string) string {
	if quoted, err := strconv.QuotedPrefix(message); err == nil {
		return strings.TrimPrefix(message[len(quoted):], ": ")
	}
	if _, after, found := strings.Cut(message, ": "); found {
		return after
	}
	return message
}

// specNames are the names of all fields within a spec.
var specNames = namesWithin(reflect.TypeFor[v1alpha1.WebhookSubscriptionSpec](), map[string]bool{})

func namesWithin(t reflect.Type, names map[string]bool) map[string]bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct {
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names[name] = true
			namesWithin(f.Type, names)
		}
	}
	return names
}

func notFound(id string) *rest.Problem {
	return rest.New(http.StatusNotFound, fmt.Sprintf("there is no subscription %.64q: GET %s lists them", id, path))
}

func busy() *rest.Problem {
	return rest.New(http.StatusServiceUnavailable,
		"the subscription is being changed by others all the time, and was not changed: send this again").
		Retry(time.Second)
}

func unready() *rest.Problem {
	return rest.New(http.StatusServiceUnavailable, "this dispatcher has not read all subscriptions yet (GET /readyz "+
		"tells why): send this again in a moment").Retry(2 * time.Second)
}
