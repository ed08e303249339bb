// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
)

const (
	sampleName      = "quickstart"
	sampleNamespace = "default"
	demoTimeout     = 60 * time.Second
	demoInterval    = 100 * time.Millisecond
	answerLimit     = 64 << 10
)

const sampleManifest = `apiVersion: webhooks.nexus.io/v1alpha1
kind: WebhookSubscription
metadata:
  name: ` + sampleName + `
  namespace: ` + sampleNamespace + `
spec:
  displayName: Quickstart
  description: Sends builds and deployments to the demo receiver.
  url: %s
  events: [build.completed, build.failed, deployment.*]
`

const sampleEvent = `{"type": "build.completed", "source": "ci", ` +
	`"data": {"build_id": "build-1", "project": "NEXUS", "duration_seconds": 42}}`

// demo shows the main path to a person, as that person would walk it.
type demo struct {
	o        *Options
	story    *story
	cluster  client.Client
	receiver *receiver
}

func newDemo(o *Options, s *story, admin *rest.Config) (*demo, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API types: %w", err)
	}
	cluster, err := client.New(admin, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return &demo{o: o, story: s, cluster: cluster}, nil
}

// key reads the signing key of the sample as its owner may.
func (d *demo) key(ctx context.Context) ([]byte, error) {
	name := client.ObjectKey{Namespace: sampleNamespace, Name: v1alpha1.GeneratedSecretName(sampleName)}
	var secret corev1.Secret
	if err := d.cluster.Get(ctx, name, &secret); err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	return secret.Data[v1alpha1.DefaultSigningKey], nil
}

func (d *demo) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	for _, step := range []func(context.Context) error{d.apply, d.publish, d.receive, d.list} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// apply applies the sample subscription and waits until events for it are taken.
func (d *demo) apply(ctx context.Context) error {
	path := d.o.data("sample.yaml")
	manifest := fmt.Sprintf(sampleManifest, d.receiver.url)
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		return fmt.Errorf("write the sample: %w", err)
	}
	d.story.tell("you", "kubectl apply -f %s", path)
	d.story.show(manifest)
	if _, err := kubectl(ctx, d.o, "", "apply", "-f", path); err != nil {
		return err
	}
	err := d.until(ctx, "the subscription is ready", func(s *v1alpha1.WebhookSubscription) bool {
		delivering := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ConditionDelivering)
		return meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ConditionReady) &&
			delivering != nil && delivering.ObservedGeneration == s.Generation
	})
	if err != nil {
		return err
	}
	d.story.tell("manager", "made the signing key (Secret %s); the subscription is ready",
		v1alpha1.GeneratedSecretName(sampleName))
	return nil
}

// until waits for the sample to hold a condition.
func (d *demo) until(ctx context.Context, what string, holds func(*v1alpha1.WebhookSubscription) bool) error {
	var s v1alpha1.WebhookSubscription
	for {
		err := d.cluster.Get(ctx, client.ObjectKey{Namespace: sampleNamespace, Name: sampleName}, &s)
		if err == nil && holds(&s) {
			return nil
		}
		select {
		case <-ctx.Done():
			status, _ := json.Marshal(s.Status) // plain data
			return fmt.Errorf("waiting until %s: %w; its status: %s (see the logs in %s)", what, ctx.Err(), status, d.o.Data)
		case <-time.After(demoInterval):
		}
	}
}

func (d *demo) publish(ctx context.Context) error {
	url := "http://" + d.o.EventAddress + "/api/v1/events"
	d.story.tell("you", "curl -X POST %s -H 'Content-Type: application/json' -d '%s'", url, sampleEvent)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(sampleEvent)))
	if err != nil {
		return fmt.Errorf("publish an event: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("publish an event: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil || response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("publish an event: %s: %s (%w)", response.Status, answer, err)
	}
	d.story.tell("dispatcher", "%s: %s", response.Status, bytes.TrimSpace(answer))
	return nil
}

// receive waits for the delivery, which the receiver announces, and for the status to tell of it.
func (d *demo) receive(ctx context.Context) error {
	select {
	case <-d.receiver.arrivals:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the delivery: %w (see %s)", ctx.Err(), d.o.data("dispatcher.log"))
	}
	return d.until(ctx, "the status tells of the delivery", func(s *v1alpha1.WebhookSubscription) bool {
		return s.Status.Delivery != nil && s.Status.Delivery.Successful > 0
	})
}

func (d *demo) list(ctx context.Context) error {
	d.story.tell("you", "kubectl get webhooksubscriptions")
	table, err := kubectl(ctx, d.o, "", "get", "webhooksubscriptions", "--namespace="+sampleNamespace)
	if err != nil {
		return err
	}
	d.story.show(table)
	return nil
}
