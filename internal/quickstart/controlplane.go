// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	etcdGrace      = 10 * time.Second
	apiServerGrace = 10 * time.Second
)

// startControlPlane starts etcd and the API server and returns the way in as an administrator, whose kubeconfig it
// writes too.
func startControlPlane(ctx context.Context, o *Options, s *supervisor) (*rest.Config, error) {
	s.story.tell("etcd", "starting")
	etcd, err := startEtcd(ctx, o, s)
	if err != nil {
		return nil, err
	}
	s.story.tell("apiserver", "starting a real kube-apiserver (some seconds)")
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	token := rand.Text()
	if err := writeCredentials(o, token); err != nil {
		return nil, err
	}
	// The server makes its certificate itself: it is there once it answers.
	certificate := o.data("apiserver", "apiserver.crt")
	admin := &rest.Config{Host: "https://" + address, BearerToken: token}
	admin.CAFile = certificate
	err = s.start(ctx, apiServer(o, admin, etcd))
	if err != nil {
		return nil, err
	}
	admin.CAData, err = os.ReadFile(certificate)
	if err != nil {
		return nil, fmt.Errorf("read the API server's certificate: %w", err)
	}
	admin.CAFile = ""
	if err := writeKubeconfig(o.data("kubeconfig"), "admin", admin); err != nil {
		return nil, err
	}
	s.story.tell("apiserver", "ready at %s", admin.Host)
	return admin, nil
}

// startEtcd returns the URL of etcd.
func startEtcd(ctx context.Context, o *Options, s *supervisor) (string, error) {
	client, err := freeAddress(ctx)
	if err != nil {
		return "", err
	}
	peer, err := freeAddress(ctx)
	if err != nil {
		return "", err
	}
	return "http://" + client, s.start(ctx, &process{
		name: "etcd", path: o.asset("etcd"), log: o.data("etcd.log"), pid: o.data("etcd.pid"), grace: etcdGrace,
		arguments: []string{
			"--name=quickstart", "--data-dir=" + o.data("etcd"), "--log-level=warn",
			"--unsafe-no-fsync", // the state is gone at the next start anyway
			"--listen-client-urls=http://" + client, "--advertise-client-urls=http://" + client,
			"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer,
			"--initial-cluster=quickstart=http://" + peer,
		},
		ready: answers(http.DefaultClient, "http://"+client+"/health"),
	})
}

func apiServer(o *Options, admin *rest.Config, etcd string) *process {
	_, port, _ := net.SplitHostPort(admin.Host[len("https://"):]) // freeAddress wrote it
	key := o.data("apiserver", "serviceaccounts.pem")
	return &process{
		name: "apiserver", path: o.asset("kube-apiserver"), log: o.data("apiserver.log"), pid: o.data("apiserver.pid"),
		grace: apiServerGrace,
		arguments: []string{
			"--etcd-servers=" + etcd, "--bind-address=127.0.0.1", "--secure-port=" + port,
			"--cert-dir=" + o.data("apiserver"), "--token-auth-file=" + o.data("apiserver", "tokens.csv"),
			"--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24",
			"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", // no Service leads here
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
		},
		ready: func(ctx context.Context) error {
			// Its certificate is new with each try until the server has written it.
			client, err := rest.HTTPClientFor(admin)
			if err != nil {
				return fmt.Errorf("connect to the API server: %w", err)
			}
			defer client.CloseIdleConnections()
			// The namespace comes last, after the built-in roles.
			return errors.Join(answers(client, admin.Host+"/readyz")(ctx),
				answers(client, admin.Host+"/api/v1/namespaces/default")(ctx))
		},
	}
}

// writeCredentials writes what the API server knows an administrator by, and the key that signs ServiceAccount tokens.
func writeCredentials(o *Options, token string) error {
	if err := os.MkdirAll(o.data("apiserver"), 0o700); err != nil {
		return fmt.Errorf("make the API server's directory: %w", err)
	}
	admin := []byte(token + ",admin,admin,system:masters\n")
	if err := os.WriteFile(o.data("apiserver", "tokens.csv"), admin, 0o600); err != nil {
		return fmt.Errorf("write the administrator's token: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the key of ServiceAccount tokens: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of ServiceAccount tokens: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(o.data("apiserver", "serviceaccounts.pem"), block, 0o600); err != nil {
		return fmt.Errorf("write the key of ServiceAccount tokens: %w", err)
	}
	return nil
}

// writeKubeconfig writes how user reaches the API server, with the credentials inside.
func writeKubeconfig(path, user string, config *rest.Config) error {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["quickstart"] = &clientcmdapi.Cluster{
		Server: config.Host, CertificateAuthorityData: config.CAData,
	}
	kubeconfig.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	kubeconfig.Contexts["quickstart"] = &clientcmdapi.Context{Cluster: "quickstart", AuthInfo: user}
	kubeconfig.CurrentContext = "quickstart"
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", user, err)
	}
	return nil
}
