// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
)

// kind is a group of subscriptions, and the events that they take.
type kind struct {
	name      string
	eventType string
	fanOut    int // subscriptions that one event matches
	// hook is the path at the receiver of the i-th subscription; nil: one that answers at once.
	hook   func(i int) string
	paused bool
	// namespace of its subscriptions, "" for default.
	namespace string
}

var (
	single = kind{name: "one", eventType: "build.completed", fanOut: 1}
	tenth  = kind{name: "ten", eventType: "deployment.completed", fanOut: 10}
)

func (k kind) path(i int) string {
	if k.hook != nil {
		return k.hook(i)
	}
	return "/hook/" + k.name + "-" + strconv.Itoa(i)
}

// filler makes a body of 1 KiB once rendered.
var filler = strings.Repeat("x", 846)

// event is the text of an event for a group of subscriptions, sent at a time (Unix ns, 0 for untimed).
func (k kind) event(group int, sent int64) string {
	return `{"type":"` + k.eventType + `","source":"bench","data":{"team":"` + strconv.Itoa(group) + `","sent_ns":` +
		strconv.FormatInt(sent, 10) + `,"filler":"` + filler + `"}}`
}

// body is that of an event's deliveries.
func (k kind) body(now time.Time) ([]byte, error) {
	e, err := event.Parse([]byte(k.event(0, 0)), now)
	if err != nil {
		return nil, fmt.Errorf("render an event: %w", err)
	}
	return e.AppendBody(nil), nil
}

// writers make subscriptions side by side.
const writers = 16

// subscribe makes the subscriptions from one number up to another, unless they are there.
func (b *bench) subscribe(ctx context.Context, k kind, from, to int) error {
	var group errgroup.Group
	group.SetLimit(writers)
	var made atomic.Int64
	for i := from; i < to && ctx.Err() == nil; i++ {
		group.Go(func() error {
			if err := created(b.kube.Create(ctx, b.subscription(k, i))); err != nil {
				return fmt.Errorf("make subscription %d: %w", i, err)
			}
			if n := made.Add(1); n%10_000 == 0 {
				say("%d subscriptions made", n)
			}
			return nil
		})
	}
	return group.Wait()
}

func (b *bench) subscription(k kind, i int) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Name: k.name + "-" + strconv.Itoa(i), Namespace: cmp.Or(k.namespace, "default")},
	}
	sub.Spec.URL = b.receiver.URL + k.path(i)
	sub.Spec.Events = []string{k.eventType}
	sub.Spec.Filter = &v1alpha1.EventFilter{Team: strconv.Itoa(i / k.fanOut)}
	sub.Spec.RateLimitPerMinute = new(int32(1_000_000))
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "bench"}}
	sub.Spec.Paused = new(k.paused)
	return sub
}

// makeKey makes the key that all deliveries are signed with.
func (b *bench) makeKey(ctx context.Context, namespace string) error {
	key := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bench", Namespace: namespace}, Type: v1alpha1.SecretTypeSigningKey,
		StringData: map[string]string{v1alpha1.DefaultSigningKey: strings.Repeat("0123456789abcdef", 4)},
	}
	if err := b.kube.Create(ctx, key); err != nil {
		return fmt.Errorf("make the signing key: %w", err)
	}
	return nil
}

// publisherToken makes a ServiceAccount that may publish, and returns a token of it.
func (b *bench) publisherToken(ctx context.Context) (string, error) {
	about := metav1.ObjectMeta{Name: "bench-publisher"}
	objects := []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: about.Name, Namespace: "default"}},
		&rbacv1.ClusterRole{ObjectMeta: about, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"events"}, Verbs: []string{"create"}},
			{
				APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"webhooksubscriptions"},
				Verbs: []string{"list"},
			},
		}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: about,
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: about.Name}},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: about.Name},
		},
	}
	for _, object := range objects {
		if err := b.kube.Create(ctx, object); err != nil {
			return "", fmt.Errorf("make the publisher's account: %w", err)
		}
	}
	typed, err := kubernetes.NewForConfig(b.cluster.Config)
	if err != nil {
		return "", fmt.Errorf("connect to the API server: %w", err)
	}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"nexus-webhooks"}},
	}
	answer, err := typed.CoreV1().ServiceAccounts("default").CreateToken(ctx, about.Name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request a token: %w", err)
	}
	return answer.Status.Token, nil
}

// created is no error where the object is there.
func created(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
