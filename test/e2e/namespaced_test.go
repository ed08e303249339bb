// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

const (
	programsNamespace = "nexus-webhooks"
	servedNamespace   = "team-a" // of config/namespaced
	roleForPublishers = "webhooks-event-publisher-role"
)

// namespaced is the product as config/namespaced installs it: ServiceAccounts with those rights and no others.
type namespaced struct {
	*testing.T
	client     client.Client
	receiver   *receiver.Receiver
	manager    *stack.Process
	dispatcher *stack.Process
}

func startNamespaced(t *testing.T) *namespaced {
	t.Helper()
	n := &namespaced{T: t}
	var err error
	n.client, err = stack.NewClient(cluster.Config)
	n.must(err)
	n.receiver, err = receiver.Start()
	n.must(err)
	t.Cleanup(n.receiver.Close)
	n.install()
	bin, err := stack.Binaries()
	n.must(err)
	api, err := stack.FreeAddress()
	n.must(err)
	n.manager = n.start("manager", bin, "--metrics-bind-address=0", "--health-probe-bind-address=127.0.0.1:0",
		"--leader-elect-namespace="+programsNamespace, "--watch-namespaces="+servedNamespace)
	n.dispatcher = n.start("dispatcher", bin, "--listen-address="+api, "--metrics-address=127.0.0.1:0",
		"--redis-url="+redistest.ForTest(t, "--appendonly", "yes").URL(), "--egress-allow-networks=127.0.0.0/8",
		"--namespace="+programsNamespace, "--watch-namespaces="+servedNamespace, "--require-namespace-grant",
		"--auth=kubernetes", "--auth-cache=1", "--log-level=debug")
	n.dispatcher.URL = "http://" + api
	n.must(n.dispatcher.WaitReady(t.Context()))
	return n
}

func (n *namespaced) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// start runs a program as its ServiceAccount.
func (n *namespaced) start(name, bin string, args ...string) *stack.Process {
	n.Helper()
	directory := n.TempDir()
	kubeconfig := filepath.Join(directory, "kubeconfig")
	account := cluster.Account(n.Context(), n, programsNamespace, "webhooks-"+name)
	n.must(stack.WriteKubeconfig(account, kubeconfig))
	p := stack.NewProcess(name, filepath.Join(directory, "log"), filepath.Join(bin, name),
		append([]string{"--kubeconfig=" + kubeconfig}, args...)...)
	n.must(p.Start())
	n.Cleanup(func() {
		p.Kill()
		if n.Failed() {
			n.Logf("last lines of %s:\n%s", name, p.Tail(30))
		}
	})
	return p
}

// install applies what config/namespaced has about rights.
func (n *namespaced) install() {
	n.Helper()
	n.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: servedNamespace}})
	n.annotate("null") // it stays from test to test: nobody is there who could end a namespace
	command := exec.CommandContext(n.Context(), filepath.Join(cluster.Assets(), "kubectl"), "kustomize",
		filepath.Join(stack.Root(), "config", "namespaced"))
	rendered, err := command.Output()
	n.must(err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096)
	kinds := []string{"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return
		}
		n.must(err)
		if slices.Contains(kinds, object.GetKind()) {
			n.create(object)
		}
	}
}

func (n *namespaced) create(object client.Object) {
	n.Helper()
	if err := n.client.Create(n.Context(), object); client.IgnoreAlreadyExists(err) != nil {
		n.Fatalf("create %s: %v", object.GetName(), err)
	}
	if kind := object.GetObjectKind().GroupVersionKind().Kind; kind != "Namespace" && object.GetName() != servedNamespace {
		n.Cleanup(func() { _ = n.client.Delete(context.Background(), object) })
	}
}

// subscribe makes a subscription to events of the project of its name.
func (n *namespaced) subscribe(namespace, name string) *v1alpha1.WebhookSubscription {
	n.Helper()
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	sub.Spec.URL, sub.Spec.Events = n.receiver.URL+"/ok/"+name, []string{"build.completed"}
	sub.Spec.Filter = &v1alpha1.EventFilter{Project: name}
	n.create(sub)
	return sub
}

// grantProjects is what an administrator does to the served namespace.
func (n *namespaced) grantProjects(projects string) {
	n.Helper()
	n.annotate(strconv.Quote(projects))
}

func (n *namespaced) annotate(value string) {
	n.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.AnnotationAllowedProjects, value)
	n.must(n.client.Patch(n.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: servedNamespace}},
		client.RawPatch("application/merge-patch+json", patch)))
}

// condition waits for a condition to have a reason.
func (n *namespaced) condition(sub *v1alpha1.WebhookSubscription, condition, reason string) *metav1.Condition {
	n.Helper()
	var found *metav1.Condition
	eventually(n.T, 30*time.Second, sub.Name+" has "+condition+" for "+reason, func(ctx context.Context) error {
		if err := n.client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		found = meta.FindStatusCondition(sub.Status.Conditions, condition)
		if found == nil || found.Reason != reason {
			return fmt.Errorf("it has %+v", sub.Status.Conditions)
		}
		return nil
	})
	return found
}

// publish posts an event of a project as the owner of a token, and returns the answer.
func (n *namespaced) publish(token, project, id string) (int, string) {
	n.Helper()
	request, err := http.NewRequestWithContext(n.Context(), http.MethodPost, n.dispatcher.URL+"/api/v1/events",
		strings.NewReader(event(project, id)))
	n.must(err)
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	n.must(err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	n.must(err)
	return response.StatusCode, string(body)
}

func (n *namespaced) expect(token, project, id string, want int, says string) {
	n.Helper()
	status, body := n.publish(token, project, id)
	if status != want || !strings.Contains(body, says) {
		n.Errorf("publish %s: %d %s, want %d and %q", id, status, body, want, says)
	}
}

// TestRolesInNamedNamespacesSuffice runs everything with Roles in one namespace, and nothing beyond but the reviews.
func TestRolesInNamedNamespacesSuffice(t *testing.T) {
	n := startNamespaced(t)
	outside := n.subscribe(cluster.Namespace(t.Context(), t, "outside"), "outside")
	granted, other := n.subscribe(servedNamespace, "granted"), n.subscribe(servedNamespace, "other")
	n.condition(granted, v1alpha1.ConditionReady, v1alpha1.ReasonReady)
	held := n.condition(granted, v1alpha1.ConditionDelivering, v1alpha1.ReasonNotGranted)
	if held.Status != metav1.ConditionFalse || !strings.Contains(held.Message, v1alpha1.AnnotationAllowedProjects) {
		t.Errorf("the condition says %+v", held)
	}
	n.grantProjects("granted, more")
	n.condition(granted, v1alpha1.ConditionDelivering, v1alpha1.ReasonNoDeliveryYet)
	held = n.condition(other, v1alpha1.ConditionDelivering, v1alpha1.ReasonNotGranted)
	if !strings.Contains(held.Message, `project "other"`) {
		t.Errorf("the condition says %+v", held)
	}

	token := cluster.Token(t.Context(), t, servedNamespace, "ci", "nexus-webhooks")
	n.expect("", "granted", "nobody", http.StatusUnauthorized, "credentials")
	n.expect(cluster.Token(t.Context(), t, servedNamespace, "ci"), "granted", "audience", http.StatusUnauthorized, "--audience=nexus-webhooks")
	n.expect(token, "granted", "too-early", http.StatusForbidden, roleForPublishers)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "publishers"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: servedNamespace, Name: "ci"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: roleForPublishers},
	}
	n.create(binding)
	eventually(t, 30*time.Second, "the publisher may publish", func(context.Context) error {
		if status, body := n.publish(token, "granted", "first"); status != http.StatusAccepted {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	for project, matched := range map[string]string{"granted": "1", "other": "0", "outside": "0"} {
		n.expect(token, project, project+"-1", http.StatusAccepted, `"subscriptions_matched":`+matched)
	}
	n.delivered(granted, 2)
	n.grantProjects("*")
	n.condition(other, v1alpha1.ConditionDelivering, v1alpha1.ReasonNoDeliveryYet)
	n.expect(token, "other", "other-2", http.StatusAccepted, `"subscriptions_matched":1`)
	n.delivered(other, 1)

	n.must(n.client.Get(t.Context(), client.ObjectKeyFromObject(outside), outside))
	if outside.Status.ID != "" || len(outside.Status.Conditions) > 0 {
		t.Errorf("a subscription of another namespace was looked at: %+v", outside.Status)
	}
	for _, p := range []*stack.Process{n.manager, n.dispatcher} {
		if strings.Contains(p.Log(), "forbidden") {
			t.Errorf("%s lacks a right", p.Name)
		}
		if strings.Contains(p.Log(), token) || strings.Contains(p.Log(), token[strings.LastIndex(token, "."):]) {
			t.Errorf("%s logs a token", p.Name)
		}
	}
	n.must(n.client.Delete(t.Context(), binding))
	eventually(t, 15*time.Second, "the publisher may no longer", func(context.Context) error {
		if status, body := n.publish(token, "granted", "late"); status != http.StatusForbidden {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// delivered waits until the status counts that many deliveries, each signed with the generated key.
func (n *namespaced) delivered(sub *v1alpha1.WebhookSubscription, count int) {
	n.Helper()
	eventually(n.T, 30*time.Second, "the status of "+sub.Name+" counts", func(ctx context.Context) error {
		err := n.client.Get(ctx, client.ObjectKeyFromObject(sub), sub)
		if d := sub.Status.Delivery; err == nil && (d == nil || d.Successful != int64(count)) {
			err = fmt.Errorf("status.delivery is %+v", d)
		}
		return err
	})
	secret := &corev1.Secret{}
	n.must(n.client.Get(n.Context(), client.ObjectKey{
		Namespace: sub.Namespace, Name: v1alpha1.GeneratedSecretName(sub.Name),
	}, secret))
	list := n.receiver.Arrivals("/ok/" + sub.Name)
	for _, a := range list {
		if !a.Verify(string(secret.Data[v1alpha1.DefaultSigningKey])) {
			n.Errorf("a delivery of %s is not signed with its key", sub.Name)
		}
	}
	if len(list) != count {
		n.Errorf("%d deliveries of %s, want %d", len(list), sub.Name, count)
	}
}

// TestNamedNamespacesHaveNoRightsElsewhere asks the API server about what config/namespaced installs.
func TestNamedNamespacesHaveNoRightsElsewhere(t *testing.T) {
	n := &namespaced{T: t}
	var err error
	n.client, err = stack.NewClient(cluster.Config)
	n.must(err)
	n.install()
	may := func(account, verb, group, resource, namespace string) bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + programsNamespace + ":webhooks-" + account,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: group, Resource: resource, Namespace: namespace,
			},
		}}
		n.must(n.client.Create(t.Context(), review))
		return review.Status.Allowed
	}
	for _, account := range []string{"manager", "dispatcher"} {
		eventually(t, 30*time.Second, account+" may read Secrets where it serves", func(context.Context) error {
			if !may(account, "list", "", "secrets", servedNamespace) {
				return errors.New("it may not")
			}
			return nil
		})
		for _, namespace := range []string{"", "default", "kube-system", programsNamespace} {
			for resource, group := range map[string]string{
				"secrets": "", "configmaps": "", "namespaces": "", "webhooksubscriptions": v1alpha1.GroupVersion.Group,
			} {
				if may(account, "list", group, resource, namespace) {
					t.Errorf("%s may list %s in namespace %q", account, resource, namespace)
				}
			}
		}
	}
}
