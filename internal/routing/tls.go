// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"nexus.io/webhooks/api/v1alpha1"
)

// TLS is how https connections to an endpoint are made, where the system's authorities and no client certificate will
// not do. It is never changed, and two of the same ID are the same, so that they can share connections.
type TLS struct {
	ID          string           // a hash of what the rest was made from
	RootCAs     *x509.CertPool   // who may vouch for the endpoint's host; nil: the system's authorities
	Certificate *tls.Certificate // what is shown to an endpoint that asks; nil: nothing
}

// String names it. It shows nothing else, so that it leaks no private key.
func (t *TLS) String() string {
	return "TLS " + t.ID
}

// GoString is String, for the same reason.
func (t *TLS) GoString() string {
	return t.String()
}

// What is wrong with certificates. The errors show nothing of them, since a private key may be among it.
var (
	ErrNoCertificate = errors.New("it holds no certificate in PEM form (BEGIN CERTIFICATE), or one that cannot be read")
	ErrNoKeyPair     = errors.New("the certificate (tls.crt) and the private key (tls.key) cannot be read as PEM, " +
		"or do not belong together")
)

// ParseCABundle reads certificates in PEM form. What is not a certificate is passed over, but one that cannot be read
// is ErrNoCertificate, as is none at all: an authority that is silently missing shows only once its endpoint fails.
func ParseCABundle(bundle []byte) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, ErrNoCertificate
		}
		pool.AddCert(certificate)
		found = true
	}
	if !found {
		return nil, ErrNoCertificate
	}
	return pool, nil
}

// ParseClientCertificate reads a certificate chain and its private key in PEM form. Its only error is ErrNoKeyPair.
func ParseClientCertificate(chain, key []byte) (*tls.Certificate, error) {
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, ErrNoKeyPair
	}
	return &certificate, nil
}

// material is what TLS is made from.
type material struct{ ca, chain, key []byte }

// id tells materials apart, whatever of it is missing.
func (m material) id() string {
	sum := sha256.New()
	for _, part := range [][]byte{m.ca, m.chain, m.key} {
		sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// compileTLS fills in how connections are made, or says why they cannot be. What is made of the same material is made
// once, if the sources can share.
func compileTLS(r *Route, sub *v1alpha1.WebhookSubscription, from Sources) *hold {
	spec := sub.Spec.TLS
	if spec == nil || spec.CABundle == nil && spec.ClientCertificate == nil {
		return nil
	}
	var m material
	var problem *hold
	if m.ca, problem = caBundle(sub, spec.CABundle, from); problem != nil {
		return problem
	}
	if m.chain, m.key, problem = clientCertificate(sub, spec.ClientCertificate, from); problem != nil {
		return problem
	}
	id := m.id()
	if from.SharedTLS != nil {
		if r.TLS = from.SharedTLS(id); r.TLS != nil {
			return nil
		}
	}
	t, problem := parse(m, spec)
	if problem != nil {
		return problem
	}
	t.ID, r.TLS = id, t
	return nil
}

func parse(m material, spec *v1alpha1.TLS) (*TLS, *hold) {
	t := &TLS{}
	var err error
	if spec.CABundle != nil {
		if t.RootCAs, err = ParseCABundle(m.ca); err != nil {
			return nil, badBundle(spec.CABundle, err)
		}
	}
	if spec.ClientCertificate != nil {
		if t.Certificate, err = ParseClientCertificate(m.chain, m.key); err != nil {
			return nil, &hold{v1alpha1.ReasonSecretKeyInvalid,
				fmt.Sprintf("Secret %q is no client certificate: %s", spec.ClientCertificate.SecretRef.Name, err)}
		}
	}
	return t, nil
}

func badBundle(source *v1alpha1.CABundleSource, err error) *hold {
	if ref := source.ConfigMapKeyRef; ref != nil {
		return &hold{v1alpha1.ReasonConfigMapKeyInvalid,
			fmt.Sprintf("key %q of ConfigMap %q is no CA bundle: %s", ref.Key, ref.Name, err)}
	}
	return &hold{v1alpha1.ReasonSecretKeyInvalid,
		fmt.Sprintf("key %q of Secret %q is no CA bundle: %s", source.SecretKeyRef.Key, source.SecretKeyRef.Name, err)}
}

func caBundle(
	sub *v1alpha1.WebhookSubscription, source *v1alpha1.CABundleSource, from Sources,
) ([]byte, *hold) {
	switch {
	case source == nil:
		return nil, nil
	case source.ConfigMapKeyRef != nil:
		return lookUpConfigMap(sub, *source.ConfigMapKeyRef, from)
	case source.SecretKeyRef != nil:
		return lookUp(sub, *source.SecretKeyRef, v1alpha1.SecretInTLS, from)
	}
	return nil, &hold{v1alpha1.ReasonSecretNotFound, "spec.tls.caBundle names neither a Secret nor a ConfigMap"}
}

func clientCertificate(
	sub *v1alpha1.WebhookSubscription, source *v1alpha1.ClientCertificateSource, from Sources,
) (chain, key []byte, problem *hold) {
	if source == nil {
		return nil, nil, nil
	}
	ref := v1alpha1.SecretKeyReference{Name: source.SecretRef.Name, Key: corev1.TLSCertKey}
	if chain, problem = lookUp(sub, ref, v1alpha1.SecretInTLS, from); problem != nil {
		return nil, nil, problem
	}
	ref.Key = corev1.TLSPrivateKeyKey
	key, problem = lookUp(sub, ref, v1alpha1.SecretInTLS, from)
	return chain, key, problem
}

// lookUpConfigMap reads a key of a ConfigMap that the subscription may use.
func lookUpConfigMap(
	sub *v1alpha1.WebhookSubscription, ref v1alpha1.ConfigMapKeyReference, from Sources,
) ([]byte, *hold) {
	var found *corev1.ConfigMap
	if from.ConfigMap != nil {
		found = from.ConfigMap(sub.Namespace, ref.Name)
	}
	if found == nil || !v1alpha1.ConfigMapReadable(found) {
		return nil, &hold{v1alpha1.ReasonConfigMapNotFound,
			fmt.Sprintf("ConfigMap %q is not there, or has not opted in to being read", ref.Name)}
	}
	value := ConfigMapValue(found, ref.Key)
	if len(value) == 0 {
		return nil, &hold{v1alpha1.ReasonConfigMapKeyMissing,
			fmt.Sprintf("ConfigMap %q has no key %q, or an empty one", ref.Name, ref.Key)}
	}
	return value, nil
}

// ConfigMapValue is what a ConfigMap holds under a key, nil for nothing.
func ConfigMapValue(from *corev1.ConfigMap, key string) []byte {
	if text, ok := from.Data[key]; ok {
		return []byte(text)
	}
	return from.BinaryData[key]
}
