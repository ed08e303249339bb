// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

const grantTimeout = 30 * time.Second

// Grant binds a ServiceAccount to a ClusterRole of config/rbac as it ships, until the test ends: in one namespace, or
// with "" in all. It returns once the API server knows. The role's name gets a prefix, so that grants do not meet.
func (c *Cluster) Grant(ctx context.Context, t testing.TB, role, namespace string, to rbacv1.Subject) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	rbac := client.RbacV1()
	shipped := shippedRole(t, role)
	shipped.GenerateName, shipped.Name = shipped.Name+"-", ""
	made, err := rbac.ClusterRoles().Create(ctx, shipped, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create ClusterRole %s: %v", role, err)
	}
	t.Cleanup(func() { _ = rbac.ClusterRoles().Delete(context.Background(), made.Name, metav1.DeleteOptions{}) })
	about := metav1.ObjectMeta{Name: made.Name, Namespace: namespace}
	reference := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: made.Name}
	subjects := []rbacv1.Subject{to}
	if namespace == "" {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: about, Subjects: subjects, RoleRef: reference}
		_, err = rbac.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
		t.Cleanup(func() {
			_ = rbac.ClusterRoleBindings().Delete(context.Background(), made.Name, metav1.DeleteOptions{})
		})
	} else {
		binding := &rbacv1.RoleBinding{ObjectMeta: about, Subjects: subjects, RoleRef: reference}
		_, err = rbac.RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{})
		t.Cleanup(func() {
			_ = rbac.RoleBindings(namespace).Delete(context.Background(), made.Name, metav1.DeleteOptions{})
		})
	}
	if err != nil {
		t.Fatalf("bind ClusterRole %s: %v", role, err)
	}
	for _, rule := range made.Rules {
		awaitRule(ctx, t, client, rule, namespace, to)
	}
}

// Subject is a ServiceAccount as bindings name it.
func Subject(namespace, account string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}
}

// shippedRole reads a file of config/rbac.
func shippedRole(t testing.TB, role string) *rbacv1.ClusterRole {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "config", "rbac", role+".yaml"))
	if err != nil {
		t.Fatalf("read the role: %v", err)
	}
	found := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(text, found); err != nil || len(found.Rules) == 0 {
		t.Fatalf("read the role %s: %d rules, %v", role, len(found.Rules), err)
	}
	return found
}

// awaitRule waits until the API server grants what a rule says: it learns of bindings as its clients do.
func awaitRule(
	ctx context.Context, t testing.TB, client kubernetes.Interface, rule rbacv1.PolicyRule, namespace string,
	to rbacv1.Subject,
) {
	t.Helper()
	resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + to.Namespace + ":" + to.Name,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: rule.APIGroups[0], Verb: rule.Verbs[0], Resource: resource, Subresource: subresource, Namespace: namespace,
		},
	}}
	const pause = 20 * time.Millisecond
	err := wait.PollUntilContextTimeout(ctx, pause, grantTimeout, true, func(ctx context.Context) (bool, error) {
		answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		return err == nil && answer.Status.Allowed, err
	})
	if err != nil {
		t.Fatalf("%s is not granted what it was bound to (%s of %s): %v", to.Name, rule.Verbs[0], rule.Resources[0], err)
	}
}
