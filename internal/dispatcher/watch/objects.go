// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
)

// complainEvery bounds how often a lasting trouble is logged.
const complainEvery = time.Minute

// objects caches the subscriptions, and the Secrets and ConfigMaps that have opted in, as the Kubernetes API tells of
// them.
type objects struct {
	places  map[string]*place // by namespace; one for all of them under metav1.NamespaceAll
	handled []cache.DoneChecker
}

// place is the caches of one namespace, or of all.
type place struct {
	subscriptions cache.SharedIndexInformer
	byType        cache.SharedIndexInformer // Secrets that opted in by their type
	byLabel       cache.SharedIndexInformer // and by their label; a Secret may be in both
	configMaps    cache.SharedIndexInformer // that opted in
	namespaces    cache.SharedIndexInformer // nil where nobody asks what they grant
}

// What is watched, as the log names it.
const (
	watchedSubscriptions = "subscriptions"
	watchedByType        = "signing keys"
	watchedByLabel       = "readable Secrets"
	watchedConfigMaps    = "readable ConfigMaps"
	watchedNamespaces    = "namespaces"
)

// newObjects makes caches that mark in w's changes what changed, and tell w's trouble what keeps them from it.
func newObjects(config *rest.Config, w *Watcher) (*objects, error) {
	subscriptions, err := subscriptionClient(config)
	if err != nil {
		return nil, err
	}
	protobuf := rest.CopyConfig(config)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	core, err := kubernetes.NewForConfig(protobuf)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	o := &objects{places: map[string]*place{}}
	for _, namespace := range w.namespaces() {
		if err := o.add(namespace, subscriptions, core.CoreV1().RESTClient(), w); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// add makes the caches of a namespace.
func (o *objects) add(namespace string, subscriptions, core rest.Interface, w *Watcher) error {
	named := func(watched string) string {
		if namespace == metav1.NamespaceAll {
			return watched
		}
		return watched + " of " + namespace
	}
	listed := func(from rest.Interface, resource, watched string, narrow func(*metav1.ListOptions)) cache.ListerWatcher {
		return w.trouble.patient(named(watched), cache.NewFilteredListWatchFromClient(from, resource, namespace, narrow))
	}
	p := &place{
		subscriptions: informer(listed(subscriptions, v1alpha1.SubscriptionResource.Resource, watchedSubscriptions,
			func(*metav1.ListOptions) {}), &v1alpha1.WebhookSubscription{}),
		byType: informer(listed(core, "secrets", watchedByType, func(l *metav1.ListOptions) {
			l.FieldSelector = "type=" + v1alpha1.SecretTypeSigningKey
		}), &corev1.Secret{}),
		byLabel:    informer(listed(core, "secrets", watchedByLabel, readable), &corev1.Secret{}),
		configMaps: informer(listed(core, "configmaps", watchedConfigMaps, readable), &corev1.ConfigMap{}),
	}
	o.places[namespace] = p
	var err error
	if w.options.RequireGrants {
		p.namespaces = informer(w.trouble.patient(named(watchedNamespaces), namespaceSource(core, namespace)),
			&corev1.Namespace{})
		err = o.prepare(p.namespaces, namespaceHandler{w}, w.trouble, named(watchedNamespaces))
	}
	return errors.Join(err,
		o.prepare(p.subscriptions, subscriptionHandler{w}, w.trouble, named(watchedSubscriptions)),
		o.prepare(p.byType, sourceHandler{w}, w.trouble, named(watchedByType)),
		o.prepare(p.byLabel, sourceHandler{w}, w.trouble, named(watchedByLabel)),
		o.prepare(p.configMaps, sourceHandler{w}, w.trouble, named(watchedConfigMaps)),
	)
}

// readable narrows a list to what opted in by its label.
func readable(l *metav1.ListOptions) {
	l.LabelSelector = v1alpha1.LabelReadable + "=" + v1alpha1.LabelReadableValue
}

// place is the caches that hold what lies in a namespace, nil where it is not watched.
func (o *objects) place(namespace string) *place {
	if all := o.places[metav1.NamespaceAll]; all != nil {
		return all
	}
	return o.places[namespace]
}

func subscriptionClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the subscription types: %w", err)
	}
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return client, nil
}

func informer(source cache.ListerWatcher, example runtime.Object) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(source, example, 0, cache.Indexers{})
}

func (o *objects) prepare(
	i cache.SharedIndexInformer, handler cache.ResourceEventHandler, t *trouble, watched string,
) error {
	if err := i.SetTransform(strip); err != nil {
		return fmt.Errorf("prepare a cache: %w", err)
	}
	err := i.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil {
			t.begins(watched, err)
		}
	})
	if err != nil {
		return fmt.Errorf("prepare a cache: %w", err)
	}
	registration, err := i.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("follow a cache: %w", err)
	}
	o.handled = append(o.handled, registration.HasSyncedChecker())
	return nil
}

func (o *objects) all() []cache.SharedIndexInformer {
	var all []cache.SharedIndexInformer
	for _, p := range o.places {
		all = append(all, p.subscriptions, p.byType, p.byLabel, p.configMaps)
		if p.namespaces != nil {
			all = append(all, p.namespaces)
		}
	}
	return all
}

func (o *objects) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, i := range o.all() {
		running.Go(func() { i.RunWithContext(ctx) })
	}
	running.Wait()
}

// waitForSync waits until every object that there is at the start was seen by its handler; false if ctx ended first.
func (o *objects) waitForSync(ctx context.Context) bool {
	for _, h := range o.handled {
		select {
		case <-h.Done():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (o *objects) subscription(k key) *v1alpha1.WebhookSubscription {
	p := o.place(k.namespace)
	if p == nil {
		return nil
	}
	item, ok, err := p.subscriptions.GetStore().GetByKey(k.String())
	if err != nil || !ok {
		return nil
	}
	sub, _ := item.(*v1alpha1.WebhookSubscription)
	return sub
}

// sources are what routes are compiled from, as the caches have it.
func (o *objects) sources(now time.Time) routing.Sources {
	return routing.Sources{Secret: o.secret, ConfigMap: o.configMap, Now: now}
}

// secret is a routing.SecretGetter.
func (o *objects) secret(namespace, name string) *corev1.Secret {
	p := o.place(namespace)
	if p == nil {
		return nil
	}
	for _, i := range []cache.SharedIndexInformer{p.byType, p.byLabel} {
		item, ok, err := i.GetStore().GetByKey(key{namespace, name}.String())
		if secret, is := item.(*corev1.Secret); err == nil && ok && is {
			return secret
		}
	}
	return nil
}

// configMap is a routing.ConfigMapGetter.
func (o *objects) configMap(namespace, name string) *corev1.ConfigMap {
	p := o.place(namespace)
	if p == nil {
		return nil
	}
	item, ok, err := p.configMaps.GetStore().GetByKey(key{namespace, name}.String())
	if found, is := item.(*corev1.ConfigMap); err == nil && ok && is {
		return found
	}
	return nil
}

const lastApplied = corev1.LastAppliedConfigAnnotation

// strip drops what nobody here reads, which is most of what a small object weighs.
func strip(item any) (any, error) {
	switch o := item.(type) {
	case *v1alpha1.WebhookSubscription:
		o.ManagedFields = lastWrite(o.ManagedFields)
		delete(o.Annotations, lastApplied)
	case *corev1.Secret:
		o.ManagedFields, o.Annotations = nil, rotation(o.Annotations)
	case *corev1.ConfigMap:
		o.ManagedFields, o.Annotations = nil, nil
	case *corev1.Namespace:
		o.ManagedFields, o.Annotations = nil, grantsOnly(o.Annotations)
	}
	return item, nil
}

// rotation is what a Secret's annotations tell of its keys.
func rotation(annotations map[string]string) map[string]string {
	var kept map[string]string
	for _, name := range []string{v1alpha1.AnnotationPreviousValidUntil, v1alpha1.AnnotationRotatedFor} {
		if value, ok := annotations[name]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = value
		}
	}
	return kept
}

// lastWrite is one entry with nothing but when something other than the status was last written.
func lastWrite(fields []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var last *metav1.Time
	for _, f := range fields {
		if f.Subresource == "" && f.Time != nil && (last == nil || last.Before(f.Time)) {
			last = f.Time
		}
	}
	if last == nil {
		return nil
	}
	return []metav1.ManagedFieldsEntry{{Time: last}}
}

// subscriptionHandler marks subscriptions whose route may have changed.
type subscriptionHandler struct{ w *Watcher }

func (h subscriptionHandler) OnAdd(item any, _ bool) {
	if sub, ok := item.(*v1alpha1.WebhookSubscription); ok {
		h.w.changes.touch(keyOf(sub))
	}
}

// OnUpdate passes over changes of status and metadata, of which no route depends.
func (h subscriptionHandler) OnUpdate(before, after any) {
	was, _ := before.(*v1alpha1.WebhookSubscription)
	is, ok := after.(*v1alpha1.WebhookSubscription)
	if ok && (was == nil || was.UID != is.UID || was.Generation != is.Generation) {
		h.w.changes.touch(keyOf(is))
	}
}

// OnDelete believes a deletion that was watched. One that was missed shows only as an absence in a later list, which
// can be wrong (a server that lags behind answers with an older list): it is put to a comparison.
func (h subscriptionHandler) OnDelete(item any) {
	if sub, ok := item.(*v1alpha1.WebhookSubscription); ok {
		h.w.changes.delete(keyOf(sub), string(sub.UID))
		return
	}
	h.w.compareSoon()
}

// sourceHandler marks Secrets and ConfigMaps that changed.
type sourceHandler struct{ w *Watcher }

func (h sourceHandler) OnAdd(item any, _ bool) { h.mark(item) }
func (h sourceHandler) OnUpdate(_, after any)  { h.mark(after) }
func (h sourceHandler) OnDelete(item any)      { h.mark(item) }

func (h sourceHandler) mark(item any) {
	if missed, ok := item.(cache.DeletedFinalStateUnknown); ok {
		item = missed.Obj
	}
	if source, ok := item.(metav1.Object); ok {
		h.w.changes.touchSource(keyOf(source))
	}
}
