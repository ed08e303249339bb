// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/fences"
	"nexus.io/webhooks/test/stack"
)

// The README's blocks build on each other, so they run one after the other, as somebody who reads it would.
func TestTheReadmeWorks(t *testing.T) {
	all, err := fences.Read(filepath.Join(stack.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	r := newReader(t)
	receivers, published := 0, 0
	for _, f := range all {
		switch {
		case f.Language == "bash" && f.Heading == "Publish":
			published++
			r.receives(t, f.Text, "python3", "receiver.py")
			r.receives(t, f.Text, "node", "receiver.js")
		case f.Language == "bash":
			r.follow(t, f.Text)
		case f.Language == "python":
			receivers++
			r.save(t, "receiver.py", f.Text)
		case f.Language == "javascript":
			receivers++
			r.save(t, "receiver.js", f.Text)
		case f.Language != "mermaid":
			t.Errorf("%s: nobody knows how to run it", f)
		}
	}
	if receivers != 2 || published != 1 {
		t.Errorf("there are %d receivers and %d blocks that publish", receivers, published)
	}
}

// reader has a terminal whose variables last from block to block. Its make says what it would do, and does nothing.
type reader struct {
	examples
	receiver string // in place of 127.0.0.1:9000
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{examples: examples{Stack: start(t, 1), dir: t.TempDir()}}
	r.prepare(t)
	var err error
	if r.receiver, err = stack.FreeAddress(); err != nil {
		t.Fatal(err)
	}
	const setUp = "mkdir .quickstart && cp kubeconfig .quickstart/ && export -p >variables"
	if out, err := r.shell(t, setUp); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		r.forget(t, r.Namespace, "cicd-notifier")
		redis := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: programsNamespace, Name: "webhooks-redis"}}
		if err := client.IgnoreNotFound(r.Client.Delete(context.Background(), redis)); err != nil {
			t.Error(err)
		}
	})
	return r
}

// here puts what this test has in the place of what the quickstart has.
func (r *reader) here(text string) string {
	port := r.receiver[strings.LastIndex(r.receiver, ":")+1:]
	return strings.NewReplacer("127.0.0.1:9000", r.receiver, `"127.0.0.1", 9000`, `"127.0.0.1", `+port,
		"9000, '127.0.0.1'", port+", '127.0.0.1'").Replace(text)
}

func (r *reader) save(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(r.here(text)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *reader) follow(t *testing.T, text string) {
	t.Helper()
	script := ". ./variables\nmake() { command make --dry-run --directory='" + stack.Root() + "' \"$@\" >/dev/null; }\n" +
		r.here(text) + "\nexport -p >variables\n"
	if out, err := r.shell(t, script); err != nil {
		t.Fatalf("%s\n%v: %s", text, err, out)
	}
}

// receives runs a receiver, publishes, and waits until it prints the event.
func (r *reader) receives(t *testing.T, publish, program, script string) {
	t.Helper()
	r.routed(t)
	// Python would keep what it prints to a file.
	command := exec.CommandContext(t.Context(), "bash", "-c", ". ./variables; PYTHONUNBUFFERED=1 exec "+program+" "+script)
	command.Dir = r.dir
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := os.Create(filepath.Join(r.dir, script+".output"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = output.Close() }()
	command.Stdout, command.Stderr = output, output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	eventually(t, 30*time.Second, script+" listens", func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.receiver)
		if err == nil {
			err = connection.Close()
		}
		return err
	})
	r.follow(t, publish)
	eventually(t, 30*time.Second, script+" prints the event", func(context.Context) error {
		printed, err := io.ReadAll(io.NewSectionReader(output, 0, 1<<20))
		if err == nil && !strings.Contains(string(printed), "verified build.completed {") {
			err = errors.New("it prints " + string(printed))
		}
		return err
	})
}

// routed waits for the dispatcher to have the subscription, which may be some milliseconds after the manager judged it.
func (r *reader) routed(t *testing.T) {
	t.Helper()
	key := client.ObjectKey{Namespace: r.Namespace, Name: "cicd-notifier"}
	eventually(t, 30*time.Second, "the subscription is routed", func(ctx context.Context) error {
		sub := &v1alpha1.WebhookSubscription{}
		err := r.Client.Get(ctx, key, sub)
		if err == nil && meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionDelivering) == nil {
			err = fmt.Errorf("it has %+v", sub.Status.Conditions)
		}
		return err
	})
}
