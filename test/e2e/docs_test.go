// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"nexus.io/webhooks/api/v1alpha1"
	eventtypes "nexus.io/webhooks/internal/event"
	"nexus.io/webhooks/test/fences"
	"nexus.io/webhooks/test/stack"
)

// notRun counts the examples of each document that say of themselves that nobody can run them. All others are run.
var notRun = map[string]int{
	"http-api.md": 0, "subscription.md": 0, "delivery-guarantees.md": 0, "security.md": 0, "configuration.md": 0,
}

func TestTheExamplesOfTheDocsWork(t *testing.T) {
	s := start(t, 1)
	d := &examples{Stack: s, dir: t.TempDir()}
	d.prepare(t)
	ran := 0
	for name, want := range notRun {
		t.Run(name, func(t *testing.T) {
			all, err := fences.Read(filepath.Join(stack.Root(), "docs", name))
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			for _, f := range all {
				if f.NotRun != "" {
					left++
					continue
				}
				ran++
				t.Run(fmt.Sprintf("line %d", f.Line), func(t *testing.T) { d.run(t, f) })
			}
			if left != want {
				t.Errorf("%d examples are marked as not run, want %d", left, want)
			}
		})
	}
	if ran < 25 {
		t.Errorf("only %d examples were run", ran)
	}
}

// examples is what the examples find: a service at webhooks:8087, and a cluster with what they name.
type examples struct {
	*stack.Stack
	dir string
}

// prepare makes what manifests name.
func (d *examples) prepare(t *testing.T) {
	t.Helper()
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: servedNamespace}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: programsNamespace}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: servedNamespace, Name: "ci"}},
	} {
		if err := client.IgnoreAlreadyExists(d.Client.Create(t.Context(), object)); err != nil {
			t.Fatal(err)
		}
	}
	api, err := url.Parse(d.Dispatchers[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := url.Parse(d.Dispatchers[0].MetricsURL)
	if err != nil {
		t.Fatal(err)
	}
	settings := ""
	for _, host := range []string{"webhooks", "127.0.0.1"} { // in a cluster, and as the quickstart has it
		settings += fmt.Sprintf("connect-to = \"%s:8087:%s\"\nconnect-to = \"%s:8088:%s\"\n", host, api.Host, host, metrics.Host)
	}
	settings += "noproxy = \"*\"\nfail-with-body\nsilent\nshow-error\n"
	if err := os.WriteFile(filepath.Join(d.dir, ".curlrc"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stack.WriteKubeconfig(cluster.Config, filepath.Join(d.dir, "kubeconfig")); err != nil {
		t.Fatal(err)
	}
	if out, err := d.shell(t, "kubectl config set-context --current --namespace="+d.Namespace); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// shell runs commands, and stops at the first that fails.
func (d *examples) shell(t *testing.T, text string) ([]byte, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", text)
	command.Dir = d.dir
	command.Env = append(os.Environ(), "CURL_HOME="+d.dir, "KUBECONFIG="+filepath.Join(d.dir, "kubeconfig"),
		"PATH="+os.Getenv("PATH")+string(os.PathListSeparator)+cluster.Assets())
	return command.CombinedOutput()
}

func (d *examples) run(t *testing.T, f fences.Fence) {
	switch f.Language {
	case "bash", "sh":
		d.commands(t, f.Text)
	case "yaml":
		d.manifest(t, f.Text)
	case "json":
		d.event(t, f.Text)
	default:
		t.Errorf("%s: nobody knows how to run it; say <!-- not run: why --> above it, and count it in notRun", f)
	}
}

// event is a JSON example: one that is taken.
func (d *examples) event(t *testing.T, text string) {
	call(t, d.Stack, 0, http.MethodPost, "/api/v1/events", text).want(t, http.StatusAccepted)
}

// manifest is applied without being kept. A part of a spec is made a subscription.
func (d *examples) manifest(t *testing.T, text string) {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &object.Object); err != nil {
		t.Fatal(err)
	}
	switch object.GetKind() {
	case "Kustomization":
		d.kustomization(t, text)
		return
	case "":
		asSubscription(object)
	}
	d.accepted(t, object)
}

// accepted creates an object without keeping it.
func (d *examples) accepted(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	strict := client.FieldValidation(metav1.FieldValidationStrict)
	if err := d.Client.Create(t.Context(), object, client.DryRunAll, strict); client.IgnoreAlreadyExists(err) != nil {
		t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

// kustomization is rendered in a copy of config/, since it refers to what is there.
func (d *examples) kustomization(t *testing.T, text string) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.CopyFS(config, os.DirFS(filepath.Join(stack.Root(), "config"))); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(config, "example")
	if err := os.Mkdir(overlay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	types := ""
	for _, object := range renderDirectory(t, overlay) {
		d.accepted(t, object)
		if object.GetKind() == "ConfigMap" {
			types, _, _ = unstructured.NestedString(object.Object, "data", "event-types.yaml")
		}
	}
	knowsOrders(t, types)
}

// knowsOrders reads a file of event types as the programs do.
func knowsOrders(t *testing.T, types string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "event-types.yaml")
	if err := os.WriteFile(path, []byte(types), 0o600); err != nil {
		t.Fatal(err)
	}
	catalogue, err := eventtypes.LoadCatalogue(path)
	if err != nil {
		t.Fatal(err)
	}
	if !catalogue.Knows("order.paid") {
		t.Errorf("order.paid is not in the file: %s", types)
	}
}

// commands find what they name: the subscription cicd-notifier of kubectl, and a subscription, a delivery and an event for
// the ids.
func (d *examples) commands(t *testing.T, text string) {
	d.notifier(t)
	thing := made(t, d.Stack, draft(strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), d.Receiver.URL+"/ok/docs"))
	event := waiting(t, d.Stack)
	text = strings.NewReplacer(
		"sub_9f2c61d04be1", thing.ID, "0193789c-2f6a-7c3e-9d41-6f1b2a7c8e50", event.Deliveries[0].DeliveryID,
		"evt_01jdwz5n8qxk4e9s7v2m3b6c0d", event.EventID, "https://your-app.example", d.Receiver.URL,
	).Replace(text)
	if out, err := d.shell(t, text); err != nil {
		t.Errorf("%s\n%v: %s", text, err, out)
	}
}

// notifier makes the subscription that commands of kubectl are about, and waits for its key.
func (d *examples) notifier(t *testing.T) {
	subscribe(t, d.Stack, "cicd-notifier", "/ok/docs", nil)
	t.Cleanup(func() {
		d.forget(t, d.Namespace, "cicd-notifier")
		d.forget(t, d.Namespace, "release-notes") // which examples create
		d.forget(t, "default", "ci-cd-notifier")
	})
}

// forget deletes a subscription and its Secret, which in a real cluster goes by itself.
func (d *examples) forget(t *testing.T, namespace, name string) {
	for _, object := range []client.Object{
		&v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.GeneratedSecretName(name)}},
	} {
		if err := client.IgnoreNotFound(d.Client.Delete(context.Background(), object)); err != nil {
			t.Error(err)
		}
	}
}

// asSubscription adds to a part of a spec what makes a subscription of it.
func asSubscription(part *unstructured.Unstructured) {
	spec, _, _ := unstructured.NestedMap(part.Object, "spec")
	spec["url"], spec["events"] = "https://endpoint.example", []any{"*"}
	part.Object["spec"] = spec
	part.SetGroupVersionKind(v1alpha1.SubscriptionKind)
	part.SetNamespace(servedNamespace)
	part.SetName("part")
}
