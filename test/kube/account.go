// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Token requests a token of a ServiceAccount, which is made unless it exists, for an hour. Without audiences it is one
// for the API server itself.
func (c *Cluster) Token(ctx context.Context, t testing.TB, namespace, account string, audiences ...string) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	accounts := client.CoreV1().ServiceAccounts(namespace)
	object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
	_, err = accounts.Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("create ServiceAccount %s: %v", account, err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	answer, err := accounts.CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("request a token of ServiceAccount %s: %v", account, err)
	}
	return answer.Status.Token
}

// Account connects as a ServiceAccount, which is made unless it exists.
func (c *Cluster) Account(ctx context.Context, t testing.TB, namespace, account string) *rest.Config {
	t.Helper()
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken = c.Token(ctx, t, namespace, account)
	return config
}

// Resign changes claims of a token and signs it again with the API server's own key.
func (c *Cluster) Resign(t testing.TB, token string, changed map[string]any) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.environment.ControlPlane.APIServer.CertDir, "sa-signer.key"))
	if err != nil {
		t.Fatalf("read the API server's key: %v", err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, isElliptic := key.(*ecdsa.PrivateKey)
	if err != nil || !isElliptic {
		t.Fatalf("read the API server's key: it is a %T: %v", key, err)
	}
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatalf("read the token: %v", err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatalf("read the token: %v", err)
	}
	maps.Copy(claims, changed)
	if payload, err = json.Marshal(claims); err != nil {
		t.Fatalf("write the token: %v", err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	one, two, err := ecdsa.Sign(rand.Reader, private, sum[:])
	if err != nil {
		t.Fatalf("sign the token: %v", err)
	}
	signature := make([]byte, 64) // ES256: two numbers of 256 bits
	one.FillBytes(signature[:32])
	two.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
