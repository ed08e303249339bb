// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stack runs the whole product for tests, each part a process of its own as in a cluster: API server and etcd,
// Redis, manager, dispatchers, and a receiver.
package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/kube"
	"nexus.io/webhooks/test/receiver"
	"nexus.io/webhooks/test/redistest"
)

// Options of a Stack.
type Options struct {
	Cluster      *kube.Cluster // shared by the tests of a package
	Dispatchers  int
	Flags        []string // of every dispatcher, further than those that the stack needs
	ManagerFlags []string // the same of the manager
	RedisFlags   []string
	RedisURL     string // of a Redis that is there; "": one is started
}

// Stack is the running product.
type Stack struct {
	Client      client.Client
	Redis       *redistest.Server // nil where RedisURL was given
	RedisURL    string
	Receiver    *receiver.Receiver
	Manager     *Process
	Dispatchers []*Process
	Namespace   string

	dir        string
	kubeconfig string
	flags      []string
}

const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// Start runs a stack that ends with the test, in a namespace of its own.
func Start(t testing.TB, o Options) *Stack {
	t.Helper()
	s := &Stack{dir: t.TempDir(), flags: o.Flags}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	bin, err := build()
	check(err)
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	check(WriteKubeconfig(o.Cluster.Config, s.kubeconfig))
	s.Client, err = NewClient(o.Cluster.Config)
	check(err)
	s.Namespace = o.Cluster.Namespace(t.Context(), t, "stack")
	if s.RedisURL = o.RedisURL; s.RedisURL == "" {
		s.Redis = redistest.ForTest(t, append([]string{"--appendonly", "yes"}, o.RedisFlags...)...)
		s.RedisURL = s.Redis.URL()
	}
	s.Receiver, err = receiver.Start()
	check(err)
	t.Cleanup(s.Receiver.Close)

	s.Manager = s.process(t, "manager", filepath.Join(bin, "manager"), append([]string{
		"--kubeconfig=" + s.kubeconfig, "--metrics-bind-address=0", "--health-probe-bind-address=127.0.0.1:0",
		"--leader-elect=false",
	}, o.ManagerFlags...)...)
	check(s.Manager.Start())
	for i := range o.Dispatchers {
		d := s.dispatcher(t, i, filepath.Join(bin, "dispatcher"))
		check(d.Start())
		s.Dispatchers = append(s.Dispatchers, d)
	}
	for _, d := range s.Dispatchers {
		check(d.WaitReady(t.Context()))
	}
	return s
}

// Further is a dispatcher like the others and beside them, which is not started.
func (s *Stack) Further(t testing.TB) *Process {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	const number = 99 // no other's
	return s.dispatcher(t, number, filepath.Join(bin, "dispatcher"))
}

func (s *Stack) dispatcher(t testing.TB, i int, path string) *Process {
	t.Helper()
	api, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{
		"--kubeconfig=" + s.kubeconfig, "--listen-address=" + api, "--metrics-address=" + metrics,
		"--redis-url=" + s.RedisURL, "--egress-allow-networks=127.0.0.0/8", "--namespace=" + s.Namespace,
	}, s.flags...)
	p := s.process(t, fmt.Sprintf("dispatcher-%d", i), path, args...)
	p.URL, p.MetricsURL = "http://"+api, "http://"+metrics
	return p
}

func (s *Stack) process(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	p := NewProcess(name, filepath.Join(s.dir, name+".log"), path, args...)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("last lines of %s:\n%s", name, p.Tail(30))
		}
	})
	return p
}

// Publish posts one event to a dispatcher and returns the answer's status and body.
func (s *Stack) Publish(ctx context.Context, dispatcher int, event string) (int, string, error) {
	return Post(ctx, http.DefaultClient, s.Dispatchers[dispatcher].URL+"/api/v1/events", event)
}

// Post sends JSON and returns the answer's status and body.
func Post(ctx context.Context, c *http.Client, url, body string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("post to %s: %w", url, err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("post to %s: %w", url, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, "", fmt.Errorf("read the answer of %s: %w", url, err)
	}
	return response.StatusCode, string(answer), nil
}

// scheme is a scheme of our own: informers read client-go's at any time.
var scheme = sync.OnceValues(func() (*kuberuntime.Scheme, error) {
	s := kuberuntime.NewScheme()
	return s, errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s))
})

// NewClient reads and writes subscriptions and the built-in kinds.
func NewClient(config *rest.Config) (client.Client, error) {
	scheme, err := scheme()
	if err != nil {
		return nil, fmt.Errorf("register the types: %w", err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return c, nil
}

// WriteKubeconfig writes what a process needs to connect as config does.
func WriteKubeconfig(config *rest.Config, path string) error {
	out := clientcmdapi.NewConfig()
	out.Clusters["test"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	if !strings.HasPrefix(config.Host, "http") {
		out.Clusters["test"].Server = "https://" + config.Host
	}
	out.AuthInfos["test"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
	}
	out.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	out.CurrentContext = "test"
	if err := clientcmd.WriteToFile(*out, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// Root is the project's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// build compiles manager and dispatcher once for all tests of the process.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nexus-webhooks-bin-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the binaries: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "./cmd/manager", "./cmd/dispatcher")
	command.Dir = Root()
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("build the binaries: %w\n%s", err, out.String())
	}
	return dir, nil
})

// Binaries returns the directory that holds freshly built manager and dispatcher.
func Binaries() (string, error) { return build() }

// Cleanup removes the binaries; call it at the end of TestMain.
func Cleanup() {
	if dir, err := build(); err == nil {
		_ = os.RemoveAll(dir)
	}
}
