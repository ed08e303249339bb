// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
)

const actionJudge = "JudgeSubscription"

// report writes the manager's part of the status if it differs from what is there, and records an event if the
// subscription became ready or not, or is not ready for another reason.
func (r *SubscriptionReconciler) report(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, desired v1alpha1.WebhookSubscriptionStatus,
) error {
	if equality.Semantic.DeepEqual(managerPart(sub.Status), desired) {
		return nil
	}
	configuration, err := applyConfiguration(sub, desired)
	if err != nil {
		return err
	}
	err = r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(configuration),
		client.FieldOwner(v1alpha1.FieldOwnerManager), client.ForceOwnership)
	if apierrors.IsNotFound(err) {
		return nil
	}
	// Applying fills in what the API server answers. Without an answer it may have been done or not, and there is none.
	r.written.remember(client.ObjectKeyFromObject(sub), configuration.GetResourceVersion())
	if err != nil {
		return fmt.Errorf("apply the status: %w", err)
	}
	r.recordTransition(sub, desired)
	return nil
}

// applyConfiguration is what server-side apply gets: all that the manager owns and nothing else. It carries no resource
// version, so that the dispatcher's writes are no conflict. Should it reach a subscription of the same name that was
// created since, the event of that creation puts it right.
func applyConfiguration(
	sub *v1alpha1.WebhookSubscription, status v1alpha1.WebhookSubscriptionStatus,
) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&status)
	if err != nil {
		return nil, fmt.Errorf("convert the status: %w", err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	object.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	object.SetNamespace(sub.Namespace)
	object.SetName(sub.Name)
	return object, nil
}

func (r *SubscriptionReconciler) recordTransition(
	sub *v1alpha1.WebhookSubscription, desired v1alpha1.WebhookSubscriptionStatus,
) {
	before := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
	after := meta.FindStatusCondition(desired.Conditions, v1alpha1.ConditionReady)
	if before != nil && before.Status == after.Status && before.Reason == after.Reason {
		return
	}
	severity := corev1.EventTypeWarning
	if after.Status == metav1.ConditionTrue {
		severity = corev1.EventTypeNormal
	}
	r.Events.Eventf(sub, nil, severity, after.Reason, actionJudge, "%s", after.Message)
}
