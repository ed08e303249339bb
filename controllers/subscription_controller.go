// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	controllerName = "webhooksubscription"

	// sourceIndex finds the subscriptions of a namespace that use a Secret or a ConfigMap of a name, or either.
	sourceIndex = "webhooks.nexus.io/source"

	maxConcurrentReconciles = 4
)

// Catalogue is what the reconciler asks about event types.
type Catalogue interface {
	// Knows tells whether this is an event type.
	Knows(eventType string) bool
	// KnowsPattern tells whether a pattern such as "build.*" matches any event type.
	KnowsPattern(pattern string) bool
	// Nearest is the event type that is most like this one.
	Nearest(eventType string) string
}

// SubscriptionReconciler brings the Secret and the status of a subscription in line with its spec.
type SubscriptionReconciler struct {
	// Client reads subscriptions from a cache, Secrets and ConfigMaps from the API server, and writes the first two.
	Client client.Client
	// Live reads subscriptions from the API server.
	Live client.Reader
	// Events records what changed, for people.
	Events events.EventRecorder
	// Catalogue knows the event types of this cluster.
	Catalogue Catalogue
	// Now is the clock.
	Now func() time.Time

	written written
}

// +kubebuilder:rbac:groups=webhooks.nexus.io,resources=webhooksubscriptions,verbs=get;list;watch
// +kubebuilder:rbac:groups=webhooks.nexus.io,resources=webhooksubscriptions/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile looks at one subscription. A wrong spec or a missing Secret ends in a condition: the watches on both wake
// it when that changes. Trouble with the API server is an error, and tried again.
func (r *SubscriptionReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	sub, err := r.read(ctx, request.NamespacedName)
	if err != nil || sub == nil {
		return reconcile.Result{}, err
	}
	if !sub.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil // the generated Secret goes with its owner
	}

	secrets, err := r.readSecrets(ctx, sub)
	if err != nil {
		return reconcile.Result{}, err
	}
	configMaps, err := r.readConfigMaps(ctx, sub)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.bringKeysInLine(ctx, sub, secrets); err != nil {
		return reconcile.Result{}, ignoreNamespaceTerminating(err)
	}

	desired := decide(sub, sources{secrets, configMaps}, r.Catalogue, r.Now())
	if err := r.removeUnusedKey(ctx, sub, desired); err != nil {
		return reconcile.Result{}, err
	}
	if err := r.report(ctx, sub, desired); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: wakeAfter(sub, secrets, r.Now())}, nil
}

// bringKeysInLine creates, rotates, remembers and forgets signing keys. The order matters: what a key is copied from
// goes once the copy is there.
func (r *SubscriptionReconciler) bringKeysInLine(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, secrets map[string]*corev1.Secret,
) error {
	steps := []func(context.Context, *v1alpha1.WebhookSubscription, map[string]*corev1.Secret) error{
		r.generateKey, r.rotateKey, r.rememberKey, r.forgetKeys,
	}
	for _, step := range steps {
		if err := step(ctx, sub, secrets); err != nil {
			return err
		}
	}
	return nil
}

// read gives a subscription that has our last write to it: from the cache, or from the API server while the cache lags
// behind. It is nil if the subscription is gone.
func (r *SubscriptionReconciler) read(
	ctx context.Context, key types.NamespacedName,
) (*v1alpha1.WebhookSubscription, error) {
	sub := &v1alpha1.WebhookSubscription{}
	err := r.Client.Get(ctx, key, sub)
	switch {
	case apierrors.IsNotFound(err):
		r.written.forget(key)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the subscription: %w", err)
	case !r.written.missing(sub):
		return sub, nil
	}
	current, err := r.readAgain(ctx, sub)
	if current != nil {
		r.written.remember(key, current.ResourceVersion)
	}
	return current, err
}

// SetupWithManager registers the reconciler. Of Secrets and ConfigMaps only the metadata is watched and kept in memory.
func (r *SubscriptionReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.WebhookSubscription{}, sourceIndex, indexSources)
	if err != nil {
		return fmt.Errorf("index subscriptions by Secret and ConfigMap: %w", err)
	}
	err = builder.ControllerManagedBy(mgr).
		Named(controllerName).
		WithOptions(controller.Options{MaxConcurrentReconciles: maxConcurrentReconciles}).
		For(&v1alpha1.WebhookSubscription{}, builder.WithPredicates(specChanged)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.usersOf)).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.usersOf)).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the %s controller: %w", controllerName, err)
	}
	return nil
}

// specChanged lets through what is new, gone, has another spec or asks for a rotation. The dispatcher's statistics
// change the status all the time, and do not concern us. After a broken watch one subscription may follow another of
// the same name and generation, as if it were an update of it.
var specChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
		e.ObjectOld.GetAnnotations()[v1alpha1.AnnotationRotateRequested] !=
			e.ObjectNew.GetAnnotations()[v1alpha1.AnnotationRotateRequested]
}}

func indexSources(object client.Object) []string {
	sub, ok := object.(*v1alpha1.WebhookSubscription)
	if !ok {
		return nil
	}
	return append(watchedSecretNames(sub), configMapNames(sub)...)
}

// usersOf lists the subscriptions to look at when a Secret or ConfigMap changed.
func (r *SubscriptionReconciler) usersOf(ctx context.Context, source client.Object) []reconcile.Request {
	var users v1alpha1.WebhookSubscriptionList
	err := r.Client.List(ctx, &users, client.InNamespace(source.GetNamespace()),
		client.MatchingFields{sourceIndex: source.GetName()}, client.UnsafeDisableDeepCopy)
	if err != nil {
		log.FromContext(ctx).Error(err, "Listing the subscriptions that use a Secret or ConfigMap failed",
			"namespace", source.GetNamespace(), "name", source.GetName())
		return nil
	}
	requests := make([]reconcile.Request, 0, len(users.Items))
	for i := range users.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{
			Namespace: users.Items[i].Namespace, Name: users.Items[i].Name,
		}})
	}
	return requests
}
