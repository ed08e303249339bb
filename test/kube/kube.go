// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kube starts a real Kubernetes API server (and its etcd) for the tests of a package, with this project's
// resources installed. Nothing else of Kubernetes runs: no controller collects garbage or makes ServiceAccounts.
//
// It promises a running server or an error that says what to do; it never skips.
package kube

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const (
	assetsVariable = "KUBEBUILDER_ASSETS"
	startTimeout   = 2 * time.Minute
	stopTimeout    = time.Minute
)

// Cluster is a running API server.
type Cluster struct {
	// Config connects as an administrator.
	Config *rest.Config

	environment *envtest.Environment
}

// Run is for TestMain: it starts a cluster, hands it to use, runs the tests, and stops it. It returns the exit code.
func Run(m *testing.M, use func(*Cluster)) int {
	flag.Parse() // a wrong flag ends the program: before anything runs
	cluster, err := Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(cluster)
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Start starts an API server on a free loopback port and installs the resources of config/crd.
func Start() (*Cluster, error) {
	if os.Getenv(assetsVariable) == "" {
		return nil, errors.New(assetsVariable + " is not set: set it to a directory that holds kube-apiserver, etcd and " +
			"kubectl (`make test` builds them and sets it)")
	}
	_, file, _, _ := runtime.Caller(0)
	environment := &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join(filepath.Dir(file), "..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  stopTimeout,
	}
	config, err := environment.Start()
	if err != nil {
		return nil, fmt.Errorf("start the API server of %s=%s: %w", assetsVariable, os.Getenv(assetsVariable), err)
	}
	return &Cluster{Config: config, environment: environment}, nil
}

// Assets is the directory that holds kube-apiserver, etcd and kubectl.
func (*Cluster) Assets() string { return os.Getenv(assetsVariable) }

// Stop ends the API server and its etcd.
func (c *Cluster) Stop() error {
	if err := c.environment.Stop(); err != nil {
		return fmt.Errorf("stop the API server: %w", err)
	}
	return nil
}

// User connects as somebody who may do only what RBAC grants to that name and those groups.
func (c *Cluster) User(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	user, err := c.environment.AddUser(envtest.User{Name: name, Groups: groups}, nil)
	if err != nil {
		t.Fatalf("add user %s: %v", name, err)
	}
	return user.Config()
}

// Namespace makes a namespace for one test, whose name starts with prefix. It stays behind: nothing runs that could
// remove it.
func (c *Cluster) Namespace(ctx context.Context, t testing.TB, prefix string) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-"}}
	created, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create namespace %s: %v", prefix, err)
	}
	return created.Name
}
