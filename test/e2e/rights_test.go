// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/test/stack"
)

// right is one thing that a role which ships allows: a verb on a resource, perhaps on one of a name only.
type right struct {
	program  string // manager or dispatcher
	where    string // inCluster, inOwn or inServed
	verb     string
	resource string // with a subresource
	group    string
	name     string
}

// Where a right holds.
const (
	inCluster = "the cluster"
	inOwn     = "the programs' namespace"
	inServed  = "a namespace that is served"
)

func (r right) String() string {
	resource := strings.TrimSuffix(r.resource+"."+r.group, ".")
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", r.program, r.verb, resource, r.name))
}

func (r right) rule() rbacv1.PolicyRule {
	rule := rbacv1.PolicyRule{Verbs: []string{r.verb}, APIGroups: []string{r.group}, Resources: []string{r.resource}}
	if r.name != "" {
		rule.ResourceNames = []string{r.name}
	}
	return rule
}

// refusal is how the API server says that somebody lacks the right, wherever.
func (r right) refusal() string {
	return fmt.Sprintf(`cannot %s resource "%s" in API group "%s"`, r.verb, r.resource, r.group)
}

// shippedRights are those that an overlay of config/ binds to the programs' ServiceAccounts.
func shippedRights(t *testing.T, overlay string) []right {
	t.Helper()
	objects := render(t, overlay)
	rules := map[string][]rbacv1.PolicyRule{}
	for _, o := range objects {
		if kind := o.GetKind(); kind == "ClusterRole" || kind == "Role" {
			var role rbacv1.ClusterRole // a Role has the same fields
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
				t.Fatal(err)
			}
			rules[kind+"/"+o.GetNamespace()+"/"+o.GetName()] = role.Rules
		}
	}
	var rights []right
	for _, o := range objects {
		if kind := o.GetKind(); kind != "ClusterRoleBinding" && kind != "RoleBinding" {
			continue
		}
		var binding rbacv1.RoleBinding // a ClusterRoleBinding has the same fields
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &binding); err != nil {
			t.Fatal(err)
		}
		rights = append(rights, bound(t, &binding, rules)...)
	}
	return rights
}

// bound are the rights that a binding gives, one by one.
func bound(t *testing.T, binding *rbacv1.RoleBinding, rules map[string][]rbacv1.PolicyRule) (rights []right) {
	t.Helper()
	where, in := inCluster, ""
	if binding.Namespace != "" {
		where = inServed
		if binding.Namespace == programsNamespace {
			where = inOwn
		}
		in = binding.Namespace
	}
	if binding.RoleRef.Kind == "ClusterRole" {
		in = ""
	}
	found := rules[binding.RoleRef.Kind+"/"+in+"/"+binding.RoleRef.Name]
	if len(found) == 0 || len(binding.Subjects) != 1 || binding.Subjects[0].Namespace != programsNamespace {
		t.Fatalf("the binding %s: %d rules for %+v", binding.Name, len(found), binding.Subjects)
	}
	r := right{program: strings.TrimPrefix(binding.Subjects[0].Name, "webhooks-"), where: where}
	for _, rule := range found {
		names := rule.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		if len(rule.NonResourceURLs) > 0 || strings.Contains(rule.String(), "*") {
			t.Fatalf("the role of %s has a rule that is not told apart: %s", binding.Name, rule.String())
		}
		for _, r.group = range rule.APIGroups {
			for _, r.resource = range rule.Resources {
				for _, r.verb = range rule.Verbs {
					for _, r.name = range names {
						rights = append(rights, r)
					}
				}
			}
		}
	}
	return rights
}

// render makes the objects of an overlay of config/.
func render(t *testing.T, overlay string) (objects []*unstructured.Unstructured) {
	t.Helper()
	return renderDirectory(t, filepath.Join(stack.Root(), "config", overlay))
}

func renderDirectory(t *testing.T, directory string) (objects []*unstructured.Unstructured) {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(cluster.Assets(), "kubectl"), "kustomize", directory)
	rendered, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendered), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
}

// give gives rights to the ServiceAccount of a program in a namespace, which is both the programs' own and the one that
// is served, by roles that hold those and nothing else. It returns once the API server knows.
func (s *scene) give(program string, rights []right) {
	s.Helper()
	name := s.namespace + "-" + program
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.namespace, Name: program}}
	var wide, narrow []rbacv1.PolicyRule
	for _, r := range rights {
		if r.where == inCluster {
			wide = append(wide, r.rule())
		} else {
			narrow = append(narrow, r.rule())
		}
	}
	in := metav1.ObjectMeta{Name: name, Namespace: s.namespace}
	s.make(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: wide})
	s.make(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}})
	s.make(&rbacv1.Role{ObjectMeta: in, Rules: narrow})
	s.make(&rbacv1.RoleBinding{ObjectMeta: in, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}})
	eventually(s.T, 30*time.Second, "the API server knows the rights of "+program, func(context.Context) error {
		for _, r := range rights {
			if !s.may(r) {
				return fmt.Errorf("it may not %s", r)
			}
		}
		return nil
	})
}

// may asks the API server whether the program has a right.
func (s *scene) may(r right) bool {
	s.Helper()
	resource, subresource, _ := strings.Cut(r.resource, "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:" + s.namespace + ":" + r.program,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: r.verb, Group: r.group, Resource: resource, Subresource: subresource, Name: r.name,
			Namespace: map[bool]string{true: "", false: s.namespace}[r.where == inCluster],
		},
	}}
	s.must(s.client.Create(s.Context(), review))
	return review.Status.Allowed
}

// make makes an object that goes with the test.
func (s *scene) make(object client.Object) {
	s.Helper()
	s.must(s.client.Create(s.Context(), object))
	s.Cleanup(func() {
		if err := client.IgnoreNotFound(s.client.Delete(context.Background(), object)); err != nil {
			s.Error(err)
		}
	})
}

// of are the rights of one program.
func of(program string, rights []right) []right {
	return slices.DeleteFunc(slices.Clone(rights), func(r right) bool { return r.program != program })
}

func sorted(rights []right) []right {
	slices.SortFunc(rights, func(a, b right) int { return cmp.Compare(a.String()+a.where, b.String()+b.where) })
	return rights
}
