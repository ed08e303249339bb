// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/api/v1alpha1"
)

var crdResource = schema.GroupVersionResource{
	Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
}

// document is a subscription as the resource's documentation shows it, status included.
const document = `
apiVersion: webhooks.nexus.io/v1alpha1
kind: WebhookSubscription
metadata: {name: cicd-notifier}
spec:
  url: https://your-app.example/webhooks/nexus
  displayName: CI/CD Notifier
  description: Notify the CI/CD dashboard of build events
  active: true
  paused: false
  events: [build.completed, build.failed, "deployment.*"]
  filter: {project: NEXUS, team: platform, severities: [critical, high]}
  rateLimitPerMinute: 60
  timeoutSeconds: 30
  maxInFlight: 10
  retry: {maxRetries: 5, initialDelaySeconds: 5, maxDelaySeconds: 3600}
  signing:
    secretRef: {name: my-key, key: secret}
    rotation: {intervalSeconds: 2592000, gracePeriodSeconds: 86400}
  headers: [{name: Authorization, valueFrom: {secretKeyRef: {name: my-key, key: auth}}}]
  tls:
    caBundle: {configMapKeyRef: {name: ca, key: ca.crt}}
    clientCertificate: {secretRef: {name: client}}
status:
  observedGeneration: 3
  id: sub_9f2c61d04be1
  host: your-app.example
  conditions:
  - {type: Ready, status: "True", reason: Ready, message: "", lastTransitionTime: "2026-01-02T03:04:05Z"}
  - {type: Delivering, status: "False", reason: EndpointFailing, message: "", lastTransitionTime: "2026-01-02T03:04:05Z"}
  signingSecret:
    name: cicd-notifier-signing
    rotatedAt: "2026-01-02T03:04:05Z"
    previousValidUntil: "2026-01-03T03:04:05Z"
  delivery:
    successful: 5210
    failed: 45
    pending: 3
    retrying: 1
    consecutiveFailures: 2
    lastAttemptTime: "2026-01-02T03:04:05Z"
    lastSuccessTime: "2026-01-02T03:04:05Z"
    lastStatusCode: 503
    lastError: the endpoint answered 503
    averageLatencyMilliseconds: 245
`

func subscriptions(t *testing.T) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return client.Resource(v1alpha1.SubscriptionResource).Namespace(metav1.NamespaceDefault)
}

// store creates the documented subscription, with its status.
func store(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
		t.Fatalf("parse: %v", err)
	}
	client := subscriptions(t)
	strict := metav1.FieldValidationStrict
	created, err := client.Create(t.Context(), object, metav1.CreateOptions{FieldValidation: strict})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		err := client.Delete(context.WithoutCancel(t.Context()), object.GetName(), metav1.DeleteOptions{})
		if err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	created.Object["status"] = object.Object["status"]
	stored, err := client.UpdateStatus(t.Context(), created, metav1.UpdateOptions{FieldValidation: strict})
	if err != nil {
		t.Fatalf("update the status: %v", err)
	}
	return stored
}

func TestTheTypesHoldAllThatTheAPIServerStores(t *testing.T) {
	stored := store(t)
	text, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	typed := &v1alpha1.WebhookSubscription{}
	if err := json.Unmarshal(text, typed); err != nil {
		t.Fatalf("decode: %v", err)
	}
	again, err := json.Marshal(typed)
	if err != nil {
		t.Fatal(err)
	}
	got := &unstructured.Unstructured{}
	if err := json.Unmarshal(again, got); err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(stored.Object, got.Object); difference != "" {
		t.Errorf("through the Go types (-stored +got):\n%s", difference)
	}
}

func TestGetShowsWhatAPersonWantsAtAGlance(t *testing.T) {
	stored := store(t)
	client, err := kubernetes.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	text, err := client.RESTClient().Get().
		AbsPath("/apis/webhooks.nexus.io/v1alpha1/namespaces/default/webhooksubscriptions", stored.GetName()).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := &metav1.Table{}
	if err := json.Unmarshal(text, table); err != nil {
		t.Fatal(err)
	}
	shown := map[int32][]string{}
	cells := map[string]any{}
	for i, column := range table.ColumnDefinitions {
		shown[column.Priority] = append(shown[column.Priority], column.Name)
		cells[column.Name] = table.Rows[0].Cells[i]
	}
	want := map[int32][]string{
		0: {"Name", "Ready", "Delivering", "Pending", "Failed", "Last Success", "Age"},
		1: {"Host", "Ready Reason", "Delivering Reason"},
	}
	if difference := cmp.Diff(want, shown); difference != "" {
		t.Errorf("columns by priority (-want +got):\n%s", difference)
	}
	delete(cells, "Age")
	if age, ok := cells["Last Success"].(string); !ok || age == "" || age == "<unknown>" {
		t.Errorf("Last Success is %v", cells["Last Success"])
	}
	delete(cells, "Last Success")
	wantCells := map[string]any{
		"Name": "cicd-notifier", "Ready": "True", "Delivering": "False", "Pending": 3.0, "Failed": 45.0,
		"Host": "your-app.example", "Ready Reason": "Ready", "Delivering Reason": "EndpointFailing",
	}
	if difference := cmp.Diff(wantCells, cells); difference != "" {
		t.Errorf("cells (-want +got):\n%s", difference)
	}
}

func TestShortNamesAndCategory(t *testing.T) {
	client, err := kubernetes.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	resources, err := client.Discovery().ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(resources.APIResources, func(r metav1.APIResource) bool {
		return r.Name == v1alpha1.SubscriptionResource.Resource
	})
	if i < 0 {
		t.Fatalf("no subscriptions in %+v", resources.APIResources)
	}
	resource := resources.APIResources[i]
	if !slices.Equal(resource.ShortNames, []string{"whsub", "whsubs"}) ||
		!slices.Equal(resource.Categories, []string{"nexus"}) || !resource.Namespaced {
		t.Errorf("the resource is %+v", resource)
	}
}

func TestGeneratedSecretNameFits(t *testing.T) {
	if got := v1alpha1.GeneratedSecretName("cicd-notifier"); got != "cicd-notifier-signing" {
		t.Errorf("got %s", got)
	}
	seen := map[string]string{}
	for _, last := range []string{"a", "b", "."} {
		for n := 1; n <= 253; n++ {
			subscription := strings.Repeat("x", n-1) + strings.Replace(last, ".", "y", 1)
			if last == "." && n > 2 {
				subscription = strings.Repeat("x.", (n-1)/2) + "z"
			}
			name := v1alpha1.GeneratedSecretName(subscription)
			if len(name) > 253 || strings.Contains(name, ".-") || strings.Contains(name, "--") {
				t.Errorf("%q is no name of a Secret", name)
			}
			if other, taken := seen[name]; taken && other != subscription {
				t.Errorf("%s and %s share %s", other, subscription, name)
			}
			seen[name] = subscription
		}
	}
}

func TestAbsentFieldsHaveTheirMeaning(t *testing.T) {
	yes, no := true, false
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	if !sub.IsActive() || sub.IsPaused() || !sub.GeneratesSigningKey() {
		t.Error("by default a subscription is active, not paused, and has its key generated")
	}
	if got, want := sub.SigningKey(), (v1alpha1.SecretKeyReference{Name: "a-signing", Key: "secret"}); got != want {
		t.Errorf("the key is %+v", got)
	}
	sub.Spec.Active, sub.Spec.Paused = &no, &yes
	sub.Spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "b"}}
	if sub.IsActive() || !sub.IsPaused() || sub.GeneratesSigningKey() {
		t.Error("what is set does not hold")
	}
	if got, want := sub.SigningKey(), (v1alpha1.SecretKeyReference{Name: "b", Key: "secret"}); got != want {
		t.Errorf("the key is %+v", got)
	}
	sub.Spec.Signing.SecretRef.Key = "c"
	if got, want := sub.SigningKey(), (v1alpha1.SecretKeyReference{Name: "b", Key: "c"}); got != want {
		t.Errorf("the key is %+v", got)
	}
}

func TestSecretsOptInByTypeOrLabel(t *testing.T) {
	cases := map[string]struct {
		secretType corev1.SecretType
		labels     map[string]string
		want       bool
	}{
		"neither":             {"Opaque", nil, false},
		"the type":            {v1alpha1.SecretTypeSigningKey, nil, true},
		"the label":           {"Opaque", map[string]string{v1alpha1.LabelReadable: "true"}, true},
		"the label off":       {"Opaque", map[string]string{v1alpha1.LabelReadable: "false"}, false},
		"a token of the node": {"bootstrap.kubernetes.io/token", map[string]string{"x": "true"}, false},
	}
	for name, c := range cases {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: c.labels}, Type: c.secretType}
		for _, use := range []v1alpha1.SecretUse{v1alpha1.SecretSigns, v1alpha1.SecretInHeader} {
			refusal := (&v1alpha1.WebhookSubscription{}).SecretRefusal(secret, string(secret.Type), use)
			if (refusal == "") != c.want || (!c.want && !strings.Contains(refusal, "webhooks.nexus.io/readable=true")) {
				t.Errorf("%s: refusal %q, want to be allowed: %t", name, refusal, c.want)
			}
		}
	}
}

func TestAGeneratedKeySignsForItsOwnSubscriptionOnly(t *testing.T) {
	subscription := func(name, uid string) *v1alpha1.WebhookSubscription {
		return &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)}}
	}
	own, another := subscription("a", "1"), subscription("b", "2")
	controlled := func(gvk schema.GroupVersionKind) metav1.OwnerReference { return *metav1.NewControllerRef(another, gvk) }
	later := v1alpha1.SubscriptionKind
	later.Version = "v1"
	foreign := schema.GroupVersionKind{Group: "external-secrets.io", Version: "v1", Kind: "ExternalSecret"}
	merelyOwned := controlled(v1alpha1.SubscriptionKind)
	merelyOwned.Controller = nil

	cases := map[string]struct {
		sub          *v1alpha1.WebhookSubscription
		owner        metav1.OwnerReference
		signs, sends bool
	}{
		"its own":                                {another, controlled(v1alpha1.SubscriptionKind), true, false},
		"another's":                              {own, controlled(v1alpha1.SubscriptionKind), false, false},
		"of one of the same name before":         {subscription("b", "3"), controlled(v1alpha1.SubscriptionKind), false, false},
		"another's of another version":           {own, controlled(later), false, false},
		"of another controller":                  {own, controlled(foreign), true, true},
		"somebody's that goes with subscription": {own, merelyOwned, true, true},
	}
	for name, c := range cases {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				OwnerReferences: []metav1.OwnerReference{c.owner},
				Labels:          map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
			},
			Type: v1alpha1.SecretTypeSigningKey,
		}
		if refusal := c.sub.SecretRefusal(secret, string(secret.Type), v1alpha1.SecretSigns); (refusal == "") != c.signs {
			t.Errorf("%s: to sign, refusal %q, want to be allowed: %t", name, refusal, c.signs)
		}
		if refusal := c.sub.SecretRefusal(secret, string(secret.Type), v1alpha1.SecretInHeader); (refusal == "") != c.sends {
			t.Errorf("%s: to send, refusal %q, want to be allowed: %t", name, refusal, c.sends)
		}
	}
}

// A label does not make the token of a ServiceAccount something to be sent.
func TestATokenOfAServiceAccountIsNeverUsed(t *testing.T) {
	secret := &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken, ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue},
	}}
	for _, use := range []v1alpha1.SecretUse{v1alpha1.SecretSigns, v1alpha1.SecretInHeader, v1alpha1.SecretInTLS} {
		refusal := (&v1alpha1.WebhookSubscription{}).SecretRefusal(secret, string(secret.Type), use)
		if !strings.Contains(refusal, "never used") {
			t.Errorf("use %d: refusal %q", use, refusal)
		}
	}
}

// A subscription that is deleted without its Secret leaves a key behind that its receivers still trust.
func TestAGeneratedKeyWithoutItsSubscriptionSignsForNobody(t *testing.T) {
	left := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.FieldOwnerManager}},
		Type:       v1alpha1.SecretTypeSigningKey,
	}
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "2"}}
	refusal := sub.SecretRefusal(left, string(left.Type), v1alpha1.SecretSigns)
	if !strings.Contains(refusal, v1alpha1.LabelManagedBy) {
		t.Errorf("refusal %q does not name the label that releases it", refusal)
	}
	delete(left.Labels, v1alpha1.LabelManagedBy)
	if refusal := sub.SecretRefusal(left, string(left.Type), v1alpha1.SecretSigns); refusal != "" {
		t.Errorf("released, it is refused: %q", refusal)
	}
}

// TestEveryFieldIsExplained keeps `kubectl explain` useful: every field says what it means, and every field of the spec
// that may be left out says what happens then.
func TestEveryFieldIsExplained(t *testing.T) {
	client, err := dynamic.NewForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	crd, err := client.Resource(crdResource).Get(t.Context(), "webhooksubscriptions.webhooks.nexus.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	version, ok := versions[0].(map[string]any)
	if !ok {
		t.Fatalf("the version is %T", versions[0])
	}
	schema, _, _ := unstructured.NestedMap(version, "schema", "openAPIV3Schema")
	for _, part := range []string{"spec", "status"} {
		fields, _, _ := unstructured.NestedMap(schema, "properties", part)
		checkExplained(t, part, fields, part == "spec")
	}
}

func checkExplained(t *testing.T, path string, schema map[string]any, needsDefault bool) {
	t.Helper()
	if items, found, _ := unstructured.NestedMap(schema, "items"); found {
		checkExplained(t, path+"[]", items, false)
		return
	}
	required, _, _ := unstructured.NestedStringSlice(schema, "required")
	properties, _, _ := unstructured.NestedMap(schema, "properties")
	for name, property := range properties {
		field, ok := property.(map[string]any)
		if !ok {
			t.Fatalf("%s.%s is %T", path, name, property)
		}
		description, _ := field["description"].(string)
		if description == "" {
			t.Errorf("%s.%s has no description", path, name)
		}
		if needsDefault && !slices.Contains(required, name) && name != "description" &&
			!strings.Contains(description, "efault: ") && !strings.Contains(path, "caBundle") {
			t.Errorf("%s.%s does not say what happens without it: %q", path, name, description)
		}
		checkExplained(t, path+"."+name, field, needsDefault)
	}
}
