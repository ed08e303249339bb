// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

// scene is a namespace for programs and subscriptions alike.
type scene struct {
	*testing.T
	client     client.Client
	namespace  string
	bin        string
	tokens     map[string]string // of the programs
	token      string            // of somebody who may change subscriptions
	subscribed int
	sub        *v1alpha1.WebhookSubscription // the latest
	dispatcher *stack.Process
	manager    *stack.Process
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{T: t, namespace: cluster.Namespace(t.Context(), t, "scene"), tokens: map[string]string{}}
	var err error
	s.client, err = stack.NewClient(cluster.Config)
	s.must(err)
	s.bin, err = stack.Binaries()
	s.must(err)
	t.Cleanup(func() { // those that were made over HTTP: the cluster is shared, and every stack would see them
		all := &v1alpha1.WebhookSubscription{}
		if err := s.client.DeleteAllOf(context.Background(), all, client.InNamespace(s.namespace)); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) freeAddress() string {
	s.Helper()
	address, err := stack.FreeAddress()
	s.must(err)
	return address
}

// start runs a program as its ServiceAccount.
func (s *scene) start(program string, n need) *stack.Process {
	s.Helper()
	directory := s.TempDir()
	kubeconfig := filepath.Join(directory, "kubeconfig")
	account := cluster.Account(s.Context(), s, s.namespace, program)
	s.must(stack.WriteKubeconfig(account, kubeconfig))
	s.tokens[program] = account.BearerToken
	args := []string{"--kubeconfig=" + kubeconfig, "--log-level=debug"}
	if !n.wide {
		args = append(args, "--watch-namespaces="+s.namespace)
	}
	address, metrics := s.freeAddress(), s.freeAddress()
	if program == "manager" {
		args = append(args, "--metrics-bind-address="+metrics, "--health-probe-bind-address="+address,
			"--leader-elect-namespace="+s.namespace)
	} else {
		args = append(args, "--listen-address="+address, "--metrics-address="+metrics, "--namespace="+s.namespace,
			"--auth=kubernetes")
	}
	p := stack.NewProcess(program, filepath.Join(directory, "log"), filepath.Join(s.bin, program), append(args, n.flags...)...)
	p.URL, p.MetricsURL, p.Env = "http://"+address, "http://"+metrics, n.env
	if program == "manager" {
		s.manager = p
	} else {
		s.dispatcher = p
		p.Env = append([]string{"REDIS_URL=" + redistest.ForTest(s).URL()}, n.env...)
	}
	s.must(p.Start())
	s.Cleanup(func() {
		p.Kill()
		if s.Failed() {
			s.Logf("last lines of %s:\n%s", program, p.Tail(30))
		}
	})
	return p
}

// startBoth runs both programs with the rights that ship, and waits until they are ready.
func startBoth(t *testing.T, flags ...string) *scene {
	t.Helper()
	s := newScene(t)
	rights := shippedRights(t, "default")
	for _, program := range []string{"manager", "dispatcher"} {
		s.give(program, of(program, rights))
	}
	s.must(s.start("manager", need{wide: true}).WaitReady(t.Context()))
	s.must(s.start("dispatcher", need{flags: flags, wide: true}).WaitReady(t.Context()))
	return s
}

// subscribe makes a subscription with a key that is to be generated and a header from a ConfigMap.
func (s *scene) subscribe() {
	s.Helper()
	s.subscribed++
	name := fmt.Sprintf("sub-%d", s.subscribed)
	about := metav1.ObjectMeta{Namespace: s.namespace, Name: name}
	s.make(&corev1.ConfigMap{Data: map[string]string{"team": "a"}, ObjectMeta: metav1.ObjectMeta{
		Namespace: s.namespace, Name: name, Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
	}})
	s.sub = &v1alpha1.WebhookSubscription{ObjectMeta: about, Spec: v1alpha1.WebhookSubscriptionSpec{
		URL: "https://endpoint.test/", Events: []string{"build.completed"},
		Headers: []v1alpha1.Header{{Name: "X-Team", ValueFrom: &v1alpha1.HeaderValueSource{
			ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: name, Key: "team"},
		}}},
	}}
	s.make(s.sub)
}

// has tells whether the subscription has a condition about what it is now, whatever it says.
func (s *scene) has(ctx context.Context, condition string) error {
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(s.sub), s.sub); err != nil {
		return err
	}
	found := meta.FindStatusCondition(s.sub.Status.Conditions, condition)
	if found == nil || found.ObservedGeneration != s.sub.Generation {
		return fmt.Errorf("it has %+v", s.sub.Status.Conditions)
	}
	return nil
}

func (s *scene) ready() {
	s.Helper()
	eventually(s.T, 30*time.Second, "the subscription is ready", func(ctx context.Context) error {
		err := s.has(ctx, v1alpha1.ConditionReady)
		if err == nil && !meta.IsStatusConditionTrue(s.sub.Status.Conditions, v1alpha1.ConditionReady) {
			err = fmt.Errorf("it has %+v", s.sub.Status.Conditions)
		}
		return err
	})
}

// key is the Secret with the generated key.
func (s *scene) key(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	name := v1alpha1.GeneratedSecretName(s.sub.Name)
	return secret, s.client.Get(ctx, client.ObjectKey{Namespace: s.namespace, Name: name}, secret)
}

// rotate asks for another key.
func (s *scene) rotate() {
	s.Helper()
	s.subscribe()
	s.ready()
	s.patch(`{"metadata":{"annotations":{"` + v1alpha1.AnnotationRotateRequested + `":"now"}}}`)
}

// moveToOwnSecret leaves the generated key behind.
func (s *scene) moveToOwnSecret() {
	s.Helper()
	s.subscribe()
	s.ready()
	own := s.sub.Name + "-own"
	s.make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: own},
		Type: v1alpha1.SecretTypeSigningKey, StringData: map[string]string{v1alpha1.DefaultSigningKey: strings.Repeat("k", 64)}})
	s.patch(`{"spec":{"signing":{"secretRef":{"name":"` + own + `"}}}}`)
}

// loseKeyTwice makes the same event happen twice.
func (s *scene) loseKeyTwice() {
	s.Helper()
	s.subscribe()
	s.ready()
	for range 2 {
		lost, err := s.key(s.Context())
		s.must(err)
		s.must(s.client.Delete(s.Context(), lost))
		eventually(s.T, 30*time.Second, "there is another key", func(ctx context.Context) error {
			found, err := s.key(ctx)
			if err == nil && found.UID == lost.UID {
				err = errors.New("it is the old one")
			}
			return err
		})
	}
}

func (s *scene) patch(text string) {
	s.Helper()
	s.must(s.client.Patch(s.Context(), s.sub, client.RawPatch(types.MergePatchType, []byte(text))))
}
