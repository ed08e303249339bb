// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
)

// applyTimeout bounds one write.
const applyTimeout = 10 * time.Second

// applier writes reports by server-side apply, as the field owner of the dispatcher.
type applier struct{ client rest.Interface }

// application is what is applied: only fields that the dispatcher owns, to an object that is as it was when they were
// decided, so that neither an object of the same name that was made later nor a condition that changed meanwhile is
// overwritten by what is true no more. Server-side apply looks at the version for that, and not at the UID.
type application struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        identity `json:"metadata"`
	Status          report   `json:"status"`
}

type identity struct {
	Namespace       string `json:"namespace"`
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion"`
}

func newApplier(config *rest.Config) (*applier, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the subscription types: %w", err)
	}
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.QPS = -1 // the budget of writes is ours
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes API: %w", err)
	}
	return &applier{client}, nil
}

// apply writes a report and returns the object that has it. A conflict means that sub is not the latest.
func (a *applier) apply(
	ctx context.Context, sub *v1alpha1.WebhookSubscription, r report,
) (*v1alpha1.WebhookSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	body, err := json.Marshal(application{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind},
		Metadata: identity{sub.Namespace, sub.Name, sub.ResourceVersion},
		Status:   r,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the status of %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	force := true
	options := &metav1.PatchOptions{FieldManager: v1alpha1.FieldOwnerDispatcher, Force: &force}
	written := &v1alpha1.WebhookSubscription{}
	err = a.client.Patch(types.ApplyYAMLPatchType).
		Namespace(sub.Namespace).Resource(v1alpha1.SubscriptionResource.Resource).Name(sub.Name).SubResource("status").
		VersionedParams(options, metav1.ParameterCodec).
		Body(body).Do(ctx).Into(written)
	if err != nil {
		return nil, fmt.Errorf("apply the status of %s/%s: %w", sub.Namespace, sub.Name, err)
	}
	return written, nil
}
