// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// rotated is the answer to a rotation.
type rotated struct {
	SubscriptionID     string     `json:"subscription_id"`
	NewSecret          string     `json:"new_secret"`
	Message            string     `json:"message"`
	PreviousValidUntil *time.Time `json:"previous_valid_until"` // null: the old key signs no more
}

// rotate serves POST /api/v1/subscriptions/{id}/rotate-secret: it asks the manager for another key, and waits for it.
func (h *handler) rotate(w http.ResponseWriter, r *rest.Request) int {
	if p := rest.Query(r.Request).Problem(); p != nil {
		return p.Write(w)
	}
	sub, p := h.findLive(r, "patch")
	if p != nil {
		return p.Write(w)
	}
	var wanted string
	var overlap time.Time
	sub, p = h.again(r.Context(), sub, func(
		sub *v1alpha1.WebhookSubscription,
	) (*v1alpha1.WebhookSubscription, *rest.Problem, error) {
		if p := checkGenerated(sub); p != nil {
			return nil, p, nil
		}
		overlap = overlapOf(h.Cache.Secret(sub.Namespace, sub.SigningKey().Name))
		if wanted = h.unanswered(sub); wanted != "" {
			return sub, nil, nil
		}
		wanted = rand.Text()
		written, err := h.cluster.annotate(r.Context(), sub, wanted)
		return written, nil, err
	})
	if p != nil {
		return p.Write(w)
	}
	var secret *corev1.Secret
	if !wait(r.Context(), secretPatience, func() bool { secret = h.rotatedFor(sub, wanted); return secret != nil }) {
		return rest.New(http.StatusServiceUnavailable, fmt.Sprintf("the manager has not replaced the key within %s, and "+
			"will once it can: see that it runs and send this again, which asks for the same replacement while it waits",
			secretPatience)).Retry(retryAway).Write(w)
	}
	w.Header().Set("Cache-Control", "no-store")
	answer := answerTo(idOf(sub), secret)
	if overlap.After(time.Now()) {
		answer.Message += " The one before it, which was to sign until " + overlap.Format(time.RFC3339) +
			", signs no more: it was replaced within its overlap, and deliveries carry two signatures at most."
	}
	return rest.JSON(w, http.StatusOK, answer)
}

// overlapOf is until when a previous key signs too; the zero time where there is none.
func overlapOf(secret *corev1.Secret) time.Time {
	if secret == nil {
		return time.Time{}
	}
	until, err := time.Parse(time.RFC3339, secret.Annotations[v1alpha1.AnnotationPreviousValidUntil])
	if err != nil {
		return time.Time{}
	}
	return until.UTC()
}

func checkGenerated(sub *v1alpha1.WebhookSubscription) *rest.Problem {
	if sub.GeneratesSigningKey() {
		return nil
	}
	return rest.New(http.StatusConflict, fmt.Sprintf("the subscription signs with a key of the Secret %s/%s, which "+
		"belongs to you: write another key into that Secret, or remove signing.secret_ref to have one generated",
		sub.Namespace, sub.SigningKey().Name))
}

// findLive is find, but asks the Kubernetes API for the object as it is: what the cache still holds of an earlier
// request for a rotation would be waited for in vain.
func (h *handler) findLive(r *rest.Request, verb string) (*v1alpha1.WebhookSubscription, *rest.Problem) {
	sub, p := h.find(r, verb)
	if p != nil {
		return nil, p
	}
	live, err := h.cluster.get(r.Context(), sub)
	switch {
	case apierrors.IsNotFound(err) || (err == nil && live.UID != sub.UID):
		return nil, notFound(idOf(sub))
	case err != nil:
		return nil, h.refusal(err, sub.Namespace)
	}
	return live, nil
}

// unanswered returns the rotation that was asked for and that the manager has not made yet, "" for none.
func (h *handler) unanswered(sub *v1alpha1.WebhookSubscription) string {
	asked := sub.Annotations[v1alpha1.AnnotationRotateRequested]
	secret := h.Cache.Secret(sub.Namespace, sub.SigningKey().Name)
	if secret == nil || secret.Annotations[v1alpha1.AnnotationRotatedFor] == asked {
		return ""
	}
	return asked
}

// rotatedFor returns the generated Secret once it answers that request and this replica signs with it, else nil.
func (h *handler) rotatedFor(sub *v1alpha1.WebhookSubscription, wanted string) *corev1.Secret {
	ref := sub.SigningKey()
	secret := h.Cache.Secret(sub.Namespace, ref.Name)
	route := h.Cache.Table().Route(idOf(sub))
	switch {
	case secret == nil || !metav1.IsControlledBy(secret, sub),
		!h.answers(secret, sub, wanted),
		route == nil || len(route.Keys) == 0 || !bytes.Equal(route.Keys[0], secret.Data[ref.Key]):
		return nil
	}
	return secret
}

// answers tells whether a Secret answers that request for a rotation, or a later one in whose place it was made.
func (h *handler) answers(secret *corev1.Secret, sub *v1alpha1.WebhookSubscription, wanted string) bool {
	answered := secret.Annotations[v1alpha1.AnnotationRotatedFor]
	if answered == wanted {
		return true
	}
	present := h.Cache.Object(idOf(sub))
	if present == nil || present.Annotations[v1alpha1.AnnotationRotateRequested] != answered {
		return false
	}
	order, err := resourceversion.CompareResourceVersion(present.ResourceVersion, sub.ResourceVersion)
	return err == nil && order > 0
}

func answerTo(id string, secret *corev1.Secret) rotated {
	answer := rotated{
		SubscriptionID: id, NewSecret: string(secret.Data[v1alpha1.DefaultSigningKey]),
		Message: "Store the new secret, it is not shown again. The old one signs no more.",
	}
	if until := overlapOf(secret); !until.IsZero() {
		answer.PreviousValidUntil = &until
		answer.Message = "Store the new secret, it is not shown again. Until " + until.Format(time.RFC3339) +
			" deliveries carry a signature by each of the two."
	}
	return answer
}
