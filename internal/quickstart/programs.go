// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// systemNamespace is where config/default puts the programs and their ServiceAccounts.
	systemNamespace = "nexus-webhooks"
	// A token lasts longer than anybody leaves a quickstart running; its server and key are gone at the next start.
	tokenLifetime = 30 * 24 * time.Hour

	managerGrace    = 25 * time.Second
	dispatcherGrace = 45 * time.Second
)

// writeServiceAccountKubeconfig asks for a token of the ServiceAccount, as a Pod gets one, and writes the kubeconfig
// that uses it. Whatever RBAC does not grant fails here as it would in a cluster.
func writeServiceAccountKubeconfig(ctx context.Context, admin *rest.Config, account, path string) error {
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	seconds := int64(tokenLifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	accounts := client.CoreV1().ServiceAccounts(systemNamespace)
	answer, err := accounts.CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("request a token of ServiceAccount %s: %w", account, err)
	}
	config := *admin
	config.BearerToken = answer.Status.Token
	return writeKubeconfig(path, account, &config)
}

func startManager(ctx context.Context, o *Options, s *supervisor, admin *rest.Config) error {
	kubeconfig := o.data("manager.kubeconfig")
	if err := writeServiceAccountKubeconfig(ctx, admin, "webhooks-manager", kubeconfig); err != nil {
		return err
	}
	health, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	err = s.start(ctx, &process{
		name: "manager", path: filepath.Join(o.Bin, "manager"), log: o.data("manager.log"), pid: o.data("manager.pid"),
		grace: managerGrace,
		arguments: []string{
			"--kubeconfig=" + kubeconfig, "--log-format=text",
			"--leader-elect=false", // there is one, and one that was killed should not have to wait for its own Lease
			"--metrics-bind-address=0", "--health-probe-bind-address=" + health,
		},
		ready: answers(http.DefaultClient, "http://"+health+"/readyz"),
	})
	if err != nil {
		return err
	}
	s.story.tell("manager", "ready, as ServiceAccount webhooks-manager (log: %s)", o.data("manager.log"))
	return nil
}

func startDispatcher(ctx context.Context, o *Options, s *supervisor, admin *rest.Config, redisURL string) error {
	kubeconfig := o.data("dispatcher.kubeconfig")
	if err := writeServiceAccountKubeconfig(ctx, admin, "webhooks-dispatcher", kubeconfig); err != nil {
		return err
	}
	// Once more, now that a while has passed: what else answers there would be taken for this one.
	err := errors.Join(checkAddress(ctx, "--event-address", o.EventAddress),
		checkAddress(ctx, "--metrics-address", o.MetricsAddress))
	if err != nil {
		return err
	}
	err = s.start(ctx, &process{
		name: "dispatcher", path: filepath.Join(o.Bin, "dispatcher"), log: o.data("dispatcher.log"),
		pid: o.data("dispatcher.pid"), grace: dispatcherGrace,
		arguments: []string{
			"--kubeconfig=" + kubeconfig, "--namespace=" + systemNamespace, "--log-format=text",
			"--listen-address=" + o.EventAddress, "--metrics-address=" + o.MetricsAddress,
			"--auth=none", "--egress-allow-networks=127.0.0.0/8,::1/128",
		},
		environment: []string{"REDIS_URL=" + redisURL}, // not an argument: everybody sees those
		ready:       answers(http.DefaultClient, "http://"+o.EventAddress+"/readyz"),
	})
	if err != nil {
		return err
	}
	s.story.tell("dispatcher", "ready, as ServiceAccount webhooks-dispatcher (log: %s)", o.data("dispatcher.log"))
	s.story.tell("dispatcher", "events at http://%s, metrics at http://%s/metrics", o.EventAddress, o.MetricsAddress)
	return nil
}
