// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	kube "k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	// fieldOwner is who the API is to server-side apply, and in what kubectl shows of managed fields.
	fieldOwner = "nexus-webhooks-api"
	// rotationOwner owns the annotation that asks for a rotation, and nothing else: with an owner of its own, applying it
	// alone takes nothing away of what the API wrote before.
	rotationOwner = "nexus-webhooks-api-rotation"
	// callTimeout bounds one call of the Kubernetes API.
	callTimeout = 10 * time.Second
)

// cluster writes subscriptions. Its errors are those of the Kubernetes API.
type cluster struct{ client kube.Interface }

func connect(config *kube.Config) (*cluster, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the subscription types: %w", err)
	}
	c := kube.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.QPS = -1 // the API server's priority and fairness decides, which knows of all replicas
	client, err := kube.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return &cluster{client}, nil
}

func at(request *kube.Request, sub *v1alpha1.WebhookSubscription) *kube.Request {
	return request.Namespace(sub.Namespace).Resource(v1alpha1.SubscriptionResource.Resource).Name(sub.Name)
}

func (c *cluster) create(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (*v1alpha1.WebhookSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	written := &v1alpha1.WebhookSubscription{}
	return written, c.client.Post().Namespace(sub.Namespace).Resource(v1alpha1.SubscriptionResource.Resource).
		VersionedParams(&metav1.CreateOptions{FieldManager: fieldOwner}, metav1.ParameterCodec).
		Body(sub).Do(ctx).Into(written)
}

func (c *cluster) get(
	ctx context.Context, sub *v1alpha1.WebhookSubscription,
) (*v1alpha1.WebhookSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	live := &v1alpha1.WebhookSubscription{}
	return live, at(c.client.Get(), sub).Do(ctx).Into(live)
}

// patch changes the spec of an object that is as sub is, by a JSON merge patch; a conflict means that it is no more.
func (c *cluster) patch(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, spec document,
) (*v1alpha1.WebhookSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(document{"metadata": document{"resourceVersion": sub.ResourceVersion}, "spec": spec})
	if err != nil {
		return nil, fmt.Errorf("encode the change of %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	written := &v1alpha1.WebhookSubscription{}
	return written, at(c.client.Patch(types.MergePatchType), sub).
		VersionedParams(&metav1.PatchOptions{FieldManager: fieldOwner}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(written)
}

// annotate applies the annotation that asks for a rotation, to an object that is as sub is.
func (c *cluster) annotate(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, value string,
) (*v1alpha1.WebhookSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(document{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": v1alpha1.Kind,
		"metadata": document{
			"namespace": sub.Namespace, "name": sub.Name, "resourceVersion": sub.ResourceVersion,
			"annotations": document{v1alpha1.AnnotationRotateRequested: value},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("encode the annotation of %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	written, force := &v1alpha1.WebhookSubscription{}, true
	return written, at(c.client.Patch(types.ApplyYAMLPatchType), sub).
		VersionedParams(&metav1.PatchOptions{FieldManager: rotationOwner, Force: &force}, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(written)
}

// remove deletes the very object that sub is, not a later one of its name.
func (c *cluster) remove(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return at(c.client.Delete(), sub).
		Body(&metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &sub.UID}}).Do(ctx).Error()
}
