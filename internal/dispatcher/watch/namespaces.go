// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/routing"
)

// namespaceSource lists and watches all Namespaces, or one.
func namespaceSource(core rest.Interface, name string) *cache.ListWatch {
	if name == metav1.NamespaceAll {
		return cache.NewFilteredListWatchFromClient(core, "namespaces", name, func(*metav1.ListOptions) {})
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			return listOne(ctx, core, name)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return watchOne(ctx, core, name, options)
		},
	}
}

// listOne reads a Namespace by name: a Role in it can allow that. What RBAC takes for a list is for all of them,
// whatever its selector says, and would need a ClusterRole.
func listOne(ctx context.Context, core rest.Interface, name string) (*corev1.NamespaceList, error) {
	var list corev1.NamespaceList
	var namespace corev1.Namespace
	err := core.Get().Resource("namespaces").Name(name).Do(ctx).Into(&namespace)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, fmt.Errorf("read Namespace %s: %w", name, err)
	default:
		list.ResourceVersion, list.Items = namespace.ResourceVersion, []corev1.Namespace{namespace}
	}
	return &list, nil
}

// watchOne watches a Namespace in the old way, whose path names it, for the same reason. It begins with what is there:
// the version at which a Namespace last changed is usually too old for a watch to begin at.
func watchOne(
	ctx context.Context, core rest.Interface, name string, options metav1.ListOptions,
) (apiwatch.Interface, error) {
	options.Watch, options.ResourceVersion = true, ""
	return core.Get().AbsPath("/api/v1/watch/namespaces", name).
		VersionedParams(&options, scheme.ParameterCodec).Watch(ctx)
}

// grant is what a Namespace grants to its subscriptions, nil where nobody asks for that.
func (o *objects) grant(namespace string) *routing.Grant {
	p := o.place(namespace)
	if p == nil || p.namespaces == nil {
		return nil
	}
	item, ok, err := p.namespaces.GetStore().GetByKey(namespace)
	if found, is := item.(*corev1.Namespace); err == nil && ok && is {
		return routing.GrantOf(found.Annotations)
	}
	return routing.GrantOf(nil)
}

// subscriptionsIn lists the subscriptions of a namespace.
func (o *objects) subscriptionsIn(namespace string) []key {
	p := o.place(namespace)
	if p == nil {
		return nil
	}
	var found []key
	for _, k := range p.subscriptions.GetStore().ListKeys() {
		if in, name, _ := strings.Cut(k, "/"); in == namespace {
			found = append(found, key{in, name})
		}
	}
	return found
}

// grantsOnly drops every annotation that grants nothing.
func grantsOnly(annotations map[string]string) map[string]string {
	kept := map[string]string{}
	for _, name := range []string{v1alpha1.AnnotationAllowedProjects, v1alpha1.AnnotationAllowedTeams} {
		if value, ok := annotations[name]; ok {
			kept[name] = value
		}
	}
	return kept
}

// namespaceHandler marks the subscriptions of Namespaces whose grants changed.
type namespaceHandler struct{ w *Watcher }

// OnAdd passes over what is there at the start: no subscription is looked at before all of it is known.
func (h namespaceHandler) OnAdd(item any, atStart bool) {
	if !atStart {
		h.mark(item)
	}
}

func (h namespaceHandler) OnUpdate(before, after any) {
	was, _ := before.(*corev1.Namespace)
	is, ok := after.(*corev1.Namespace)
	if ok && was != nil && maps.Equal(was.Annotations, is.Annotations) {
		return
	}
	h.mark(after)
}

func (h namespaceHandler) OnDelete(item any) {
	if missed, ok := item.(cache.DeletedFinalStateUnknown); ok {
		item = missed.Obj
	}
	h.mark(item)
}

func (h namespaceHandler) mark(item any) {
	namespace, ok := item.(*corev1.Namespace)
	if !ok {
		return
	}
	for _, k := range h.w.objects.subscriptionsIn(namespace.Name) {
		h.w.changes.touch(k)
	}
}
