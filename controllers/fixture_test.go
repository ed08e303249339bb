// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/test/kube"
)

const (
	patience = 30 * time.Second
	interval = 20 * time.Millisecond

	managerUser = "manager"
)

var cluster *kube.Cluster

func TestMain(m *testing.M) {
	os.Exit(kube.Run(m, func(c *kube.Cluster) { cluster = c }))
}

// fixture is a namespace of its own with an administrator's client, and a manager where started.
type fixture struct {
	t         *testing.T
	ctx       context.Context
	client    client.Client
	namespace string
	log       *syncedBuffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	scheme, err := newScheme()
	must(t, err)
	admin, err := client.New(cluster.Config, client.Options{Scheme: scheme})
	must(t, err)
	return &fixture{
		t: t, ctx: t.Context(), client: admin, log: &syncedBuffer{},
		namespace: cluster.Namespace(t.Context(), t, "controllers"),
	}
}

// newManagedFixture also runs a manager, as a user who may do what config/rbac allows and nothing else.
func newManagedFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.start(Options{})
	return f
}

// start runs a manager until the returned function is called, or else to the end of the test.
func (f *fixture) start(options Options) (stop func()) {
	f.t.Helper()
	options.Config = f.managerConfig()
	options.Catalogue = event.Builtin()
	options.Logger = slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if options.MetricsAddress == "" {
		options.MetricsAddress = "0"
	}
	if options.HealthAddress == "" {
		options.HealthAddress = "0"
	}
	ctx, cancel := context.WithCancel(context.Background())
	manager, err := NewManager(ctx, options)
	must(f.t, err)
	done := make(chan error, 1)
	go func() { done <- manager.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				f.t.Errorf("the manager ended: %v", err)
			}
		case <-time.After(patience):
			f.t.Error("the manager did not stop")
		}
	})
	f.t.Cleanup(stop)
	return stop
}

// managerConfig connects as the manager's user, with the roles of config/rbac bound as its bindings do. The role for the
// Lease is bound in the fixture's namespace.
func (f *fixture) managerConfig() *rest.Config {
	f.t.Helper()
	for _, role := range manifests(f.t, "rbac", "role.yaml") {
		f.bindTo(managerUser, role)
	}
	return cluster.User(f.t, managerUser)
}

// bindTo creates a role unless it exists, and binds it to a user.
func (f *fixture) bindTo(user string, role *unstructured.Unstructured) {
	f.t.Helper()
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: role.GetKind(), Name: role.GetName()}
	var binding client.Object = &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, Subjects: subjects, RoleRef: ref,
	}
	if role.GetKind() == "Role" {
		role.SetNamespace(f.namespace)
		binding = &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: user}, Subjects: subjects, RoleRef: ref,
		}
	}
	for _, object := range []client.Object{role, binding} {
		if err := f.client.Create(f.ctx, object); client.IgnoreAlreadyExists(err) != nil {
			f.t.Fatalf("create %T %s: %v", object, object.GetName(), err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// subscription is a valid one that is not created yet.
func (f *fixture) subscription(name string) *v1alpha1.WebhookSubscription {
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL: "https://your-app.example:8443/webhooks/nexus", Events: []string{"build.completed"},
		},
	}
}

func (f *fixture) signedWith(name, secret string) *v1alpha1.WebhookSubscription {
	sub := f.subscription(name)
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: secret}}
	return sub
}

// secret is a Secret of somebody, opted in by its label.
func (f *fixture) secret(name string, data map[string]string) *corev1.Secret {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: f.namespace, Name: name,
			Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
		},
		Data: map[string][]byte{},
	}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	return secret
}

func (f *fixture) create(objects ...client.Object) {
	f.t.Helper()
	for _, object := range objects {
		must(f.t, f.client.Create(f.ctx, object))
	}
}

// edit changes an object as somebody with kubectl would, whatever the others write at the same time.
func edit[T client.Object](f *fixture, object T, change func(T)) {
	f.t.Helper()
	f.eventually("edit "+object.GetName(), func() error {
		if err := f.client.Get(f.ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		change(object)
		return f.client.Update(f.ctx, object)
	})
}

func (f *fixture) delete(object client.Object) {
	f.t.Helper()
	must(f.t, f.client.Delete(f.ctx, object))
}

func (f *fixture) getSubscription(name string) *v1alpha1.WebhookSubscription {
	f.t.Helper()
	sub := &v1alpha1.WebhookSubscription{}
	must(f.t, f.client.Get(f.ctx, f.key(name), sub))
	return sub
}

func (f *fixture) getSecret(name string) *corev1.Secret {
	f.t.Helper()
	secret := &corev1.Secret{}
	must(f.t, f.client.Get(f.ctx, f.key(name), secret))
	return secret
}

func (f *fixture) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: f.namespace, Name: name}
}

func (f *fixture) eventually(what string, attempt func() error) {
	f.t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(f.ctx, interval, patience, true, func(context.Context) (bool, error) {
		last = attempt()
		return last == nil, nil
	})
	if err != nil {
		f.t.Fatalf("%s: not within %s: %v\nthe manager's log:\n%s", what, patience, last, f.log)
	}
}

// waitFor waits until the manager has judged the current spec and says this, and returns the condition.
func (f *fixture) waitFor(name, conditionType, reason string) metav1.Condition {
	f.t.Helper()
	var found metav1.Condition
	f.eventually(fmt.Sprintf("%s of %s becomes %s", conditionType, name, reason), func() error {
		sub := f.getSubscription(name)
		condition := meta.FindStatusCondition(sub.Status.Conditions, conditionType)
		if condition == nil || condition.Reason != reason || condition.ObservedGeneration != sub.Generation {
			return fmt.Errorf("generation %d has conditions %+v", sub.Generation, sub.Status.Conditions)
		}
		found = *condition
		return nil
	})
	return found
}

func (f *fixture) waitReady(name string) *v1alpha1.WebhookSubscription {
	f.t.Helper()
	f.waitFor(name, v1alpha1.ConditionReady, v1alpha1.ReasonReady)
	return f.getSubscription(name)
}

// events lists what was recorded about a subscription, as "Type Reason: note".
func (f *fixture) events(name string) []string {
	f.t.Helper()
	var list eventsv1.EventList
	must(f.t, f.client.List(f.ctx, &list, client.InNamespace(f.namespace)))
	var found []string
	for i := range list.Items {
		e := &list.Items[i]
		if e.Regarding.Name == name {
			found = append(found, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Note))
		}
	}
	return found
}

func (f *fixture) waitForEvent(name, start string) {
	f.t.Helper()
	f.eventually("an event "+start, func() error {
		all := f.events(name)
		for _, e := range all {
			if strings.HasPrefix(e, start) {
				return nil
			}
		}
		return fmt.Errorf("there are %q", all)
	})
}

// syncedBuffer is a log that may be read while it is written.
type syncedBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.Write(p)
}

func (b *syncedBuffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.buffer.String()
}
