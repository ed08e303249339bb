// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package access

import (
	"net/http"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// listIn lets a ServiceAccount list subscriptions in one namespace.
func (b *bench) listIn(namespace, account string) {
	b.Helper()
	meta := metav1.ObjectMeta{Name: account + "-lists"}
	_, err := b.admin.RbacV1().Roles(namespace).Create(b.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"webhooks.nexus.io"}, Resources: []string{"webhooksubscriptions"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{})
	b.must(err)
	_, err = b.admin.RbacV1().RoleBindings(namespace).Create(b.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: b.namespace, Name: account}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
	}, metav1.CreateOptions{})
	b.must(err)
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + b.namespace + ":" + account,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: "webhooks.nexus.io", Resource: "webhooksubscriptions", Verb: "list", Namespace: namespace,
		},
	}}
	eventually(b.T, "the API server knows of the right", func() bool {
		answer, err := b.admin.AuthorizationV1().SubjectAccessReviews().Create(b.Context(), review, metav1.CreateOptions{})
		b.must(err)
		return answer.Status.Allowed
	})
}

func TestAListHoldsWhatRBACLetsItsCallerList(t *testing.T) {
	b := newBench(t, nil)
	seen, unseen := cluster.Namespace(t.Context(), t, "seen"), cluster.Namespace(t.Context(), t, "unseen")
	b.listIn(seen, "ops")
	caller, problem := b.Authenticate(request(b.token("ops")))
	if problem != nil {
		t.Fatal(problem.Detail)
	}
	list := rest.Action{Verb: "list", Resource: "webhooksubscriptions"}
	scope, problem := rest.NewScope(t.Context(), caller, list)
	if problem != nil {
		t.Fatal(problem.Detail)
	}
	if !scope.Holds(seen) || scope.Holds(unseen) || scope.Problem() != nil {
		t.Errorf("holds %v, %v, problem %v", scope.Holds(seen), scope.Holds(unseen), scope.Problem())
	}
	list.Namespace = unseen
	if _, problem := rest.NewScope(t.Context(), caller, list); problem == nil || problem.Status != http.StatusForbidden {
		t.Errorf("a list of a namespace that is not the caller's: %v, want 403", problem)
	}
	list.Namespace = ""
	b.away()
	b.forward(time.Minute)
	if scope, problem = rest.NewScope(t.Context(), caller, list); problem != nil || !scope.Holds(seen) || scope.Holds(unseen) {
		t.Errorf("while the Kubernetes API is away: %v", problem)
	}
	if scope.Holds("other"); scope.Problem() == nil {
		t.Error("a namespace that nobody asked of before is judged while the Kubernetes API is away")
	}
	b.forward(time.Hour)
	if _, problem := rest.NewScope(t.Context(), caller, list); problem == nil || problem.Status != http.StatusServiceUnavailable {
		t.Errorf("while the Kubernetes API is away: %v, want 503", problem)
	}
}
