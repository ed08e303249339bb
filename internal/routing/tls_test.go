// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package routing

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/pki"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "team-a",
			Labels: map[string]string{v1alpha1.LabelReadable: v1alpha1.LabelReadableValue}},
		Data: data,
	}
}

func (s Sources) with(configMaps ...*corev1.ConfigMap) Sources {
	s.ConfigMap = func(namespace, name string) *corev1.ConfigMap {
		for _, c := range configMaps {
			if c.Namespace == namespace && c.Name == name {
				return c
			}
		}
		return nil
	}
	return s
}

func withTLS(bundle *v1alpha1.CABundleSource, certificate string) func(*v1alpha1.WebhookSubscription) {
	return func(s *v1alpha1.WebhookSubscription) {
		s.Spec.TLS = &v1alpha1.TLS{CABundle: bundle}
		if certificate != "" {
			s.Spec.TLS.ClientCertificate = &v1alpha1.ClientCertificateSource{
				SecretRef: v1alpha1.SecretReference{Name: certificate}}
		}
	}
}

func inConfigMap(name, key string) *v1alpha1.CABundleSource {
	return &v1alpha1.CABundleSource{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: name, Key: key}}
}

func inSecret(name, key string) *v1alpha1.CABundleSource {
	return &v1alpha1.CABundleSource{SecretKeyRef: &v1alpha1.SecretKeyReference{Name: name, Key: key}}
}

func TestTLSIsTakenFromWhatTheSpecNames(t *testing.T) {
	ca := pki.NewAuthority(t, "ca")
	chain, key := ca.Issue("client")
	_, otherKey := ca.Issue("other")
	pair := func(name string, chain, key []byte) *corev1.Secret {
		return readable(name, map[string]string{"tls.crt": string(chain), "tls.key": string(key)})
	}
	bundle := string(ca.Bundle())
	closed := configMap("closed", map[string]string{"ca.crt": bundle})
	closed.Labels = nil
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hidden")}))
	from := getter(generated(map[string]string{"secret": signingKeyText}),
		pair("pair", chain, key), pair("mismatch", chain, otherKey), pair("half", chain, nil), pair("text", []byte("hidden"), key),
		readable("bundle", map[string]string{"ca.crt": bundle}),
	).with(closed, configMap("ca", map[string]string{"ca.crt": bundle, "text": "hidden", "empty": "",
		"remarks": "# ours\n" + bundle + "\n# end\n", "key": string(key), "broken": bundle + broken}),
		&corev1.ConfigMap{ObjectMeta: configMap("binary", nil).ObjectMeta, BinaryData: map[string][]byte{"ca.crt": ca.Bundle()}})

	cases := map[string]struct {
		bundle      *v1alpha1.CABundleSource
		certificate string
		hold        string
		detail      string // a part
	}{
		"a bundle of a ConfigMap":               {inConfigMap("ca", "ca.crt"), "", "", ""},
		"a bundle of a ConfigMap's binary data": {inConfigMap("binary", "ca.crt"), "", "", ""},
		"a bundle with remarks":                 {inConfigMap("ca", "remarks"), "", "", ""},
		"a bundle of a Secret":                  {inSecret("bundle", "ca.crt"), "", "", ""},
		"a client certificate":                  {nil, "pair", "", ""},
		"both":                                  {inConfigMap("ca", "ca.crt"), "pair", "", ""},
		"no such ConfigMap":                     {inConfigMap("none", "ca.crt"), "", v1alpha1.ReasonConfigMapNotFound, `"none"`},
		"a ConfigMap that has not opted in":     {inConfigMap("closed", "ca.crt"), "", v1alpha1.ReasonConfigMapNotFound, "opted in"},
		"no such key":                           {inConfigMap("ca", "nope"), "", v1alpha1.ReasonConfigMapKeyMissing, `"nope"`},
		"an empty key":                          {inConfigMap("ca", "empty"), "", v1alpha1.ReasonConfigMapKeyMissing, `"empty"`},
		"a bundle that is text":                 {inConfigMap("ca", "text"), "", v1alpha1.ReasonConfigMapKeyInvalid, "no certificate"},
		"a bundle that is a private key":        {inConfigMap("ca", "key"), "", v1alpha1.ReasonConfigMapKeyInvalid, "no certificate"},
		"a bundle with a broken one":            {inConfigMap("ca", "broken"), "", v1alpha1.ReasonConfigMapKeyInvalid, "cannot be read"},
		"a bundle that is a Secret's key pair":  {inSecret("pair", "tls.key"), "", v1alpha1.ReasonSecretKeyInvalid, "no CA bundle"},
		"a bundle of a generated Secret":        {inSecret("ci-signing", "secret"), "", v1alpha1.ReasonSecretNotReadable, "generated"},
		"no such Secret":                        {nil, "none", v1alpha1.ReasonSecretNotFound, `"none"`},
		"a certificate without its key":         {nil, "half", v1alpha1.ReasonSecretKeyMissing, `"tls.key"`},
		"a certificate and another's key":       {nil, "mismatch", v1alpha1.ReasonSecretKeyInvalid, "belong together"},
		"a certificate that is text":            {nil, "text", v1alpha1.ReasonSecretKeyInvalid, "belong together"},
		"a good bundle and a bad certificate":   {inConfigMap("ca", "ca.crt"), "text", v1alpha1.ReasonSecretKeyInvalid, "belong together"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := Compile(subscription(withTLS(c.bundle, c.certificate)), from, defaults)
			if r.Hold != c.hold || !strings.Contains(r.HoldDetail, c.detail) || strings.Contains(r.HoldDetail, "hidden") {
				t.Fatalf("hold is %q (%s), want %q (%s)", r.Hold, r.HoldDetail, c.hold, c.detail)
			}
			if c.hold != "" {
				if r.TLS != nil {
					t.Error("a route on hold for its TLS has one")
				}
				return
			}
			if (r.TLS.RootCAs != nil) != (c.bundle != nil) || (r.TLS.Certificate != nil) != (c.certificate != "") {
				t.Errorf("TLS has authorities: %t, a certificate: %t", r.TLS.RootCAs != nil, r.TLS.Certificate != nil)
			}
			if c.bundle != nil && !r.TLS.RootCAs.Equal(ca.Pool()) {
				t.Error("the authorities are not those of the bundle")
			}
			if c.certificate != "" && !bytes.Equal(r.TLS.Certificate.Certificate[0], parsed(t, chain).Raw) {
				t.Error("the certificate is not that of the Secret")
			}
		})
	}
}

func parsed(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestTheIDOfATLSFollowsItsMaterial(t *testing.T) {
	a, b := pki.NewAuthority(t, "a"), pki.NewAuthority(t, "b")
	chain, key := a.Issue("client")
	secrets := getter(generated(map[string]string{"secret": signingKeyText}),
		readable("pair", map[string]string{"tls.crt": string(chain), "tls.key": string(key)}))
	compile := func(bundle []byte, certificate string) *Route {
		source := inConfigMap("ca", "ca.crt")
		if bundle == nil {
			source = nil
		}
		from := secrets.with(configMap("ca", map[string]string{"ca.crt": string(bundle)}))
		return Compile(subscription(withTLS(source, certificate)), from, defaults)
	}
	one := compile(a.Bundle(), "")
	if again := compile(a.Bundle(), ""); !one.Equal(again) || one.TLS.ID != again.TLS.ID {
		t.Error("the same bundle makes another route")
	}
	different := []*Route{one, compile(b.Bundle(), ""), compile(a.Bundle(), "pair"), compile(nil, "pair"),
		Compile(subscription(nil), secrets, defaults)}
	for i, x := range different {
		for j, y := range different {
			if i != j && x.Equal(y) {
				t.Errorf("routes %d and %d are the same", i, j)
			}
		}
	}
}

func TestATLSThatWasMadeBeforeIsTakenAgain(t *testing.T) {
	ca := pki.NewAuthority(t, "ca")
	from := getter(generated(map[string]string{"secret": signingKeyText})).
		with(configMap("ca", map[string]string{"ca.crt": string(ca.Bundle())}))
	sub := subscription(withTLS(inConfigMap("ca", "ca.crt"), ""))
	first := Compile(sub, from, defaults).TLS
	from.SharedTLS = func(id string) *TLS {
		if id == first.ID {
			return first
		}
		return nil
	}
	if got := Compile(sub, from, defaults).TLS; got != first {
		t.Error("it was made again")
	}
}

func TestAHeaderIsTakenFromAConfigMap(t *testing.T) {
	from := getter(generated(map[string]string{"secret": signingKeyText})).
		with(configMap("settings", map[string]string{"team": "platform", "lines": "hidden\n"}))
	header := func(key string) func(*v1alpha1.WebhookSubscription) {
		return func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Headers = []v1alpha1.Header{{Name: "X-Team", ValueFrom: &v1alpha1.HeaderValueSource{
				ConfigMapKeyRef: &v1alpha1.ConfigMapKeyReference{Name: "settings", Key: key}}}}
		}
	}
	r := Compile(subscription(header("team")), from, defaults)
	if len(r.Headers) != 1 || r.Headers[0] != (Header{Name: "X-Team", Value: "platform"}) || r.Hold != "" {
		t.Errorf("headers are %v, hold is %q", r.Headers, r.Hold)
	}
	r = Compile(subscription(header("lines")), from, defaults)
	if r.Hold != v1alpha1.ReasonConfigMapKeyInvalid || strings.Contains(r.HoldDetail, "hidden") || len(r.Headers) > 0 {
		t.Errorf("hold is %q (%s), headers are %v", r.Hold, r.HoldDetail, r.Headers)
	}
}

func TestAPrintedTLSShowsNoKey(t *testing.T) {
	_, key := pki.NewAuthority(t, "ca").Issue("client")
	chain, _ := pki.NewAuthority(t, "ca").Issue("client")
	if _, err := ParseClientCertificate(chain, key); err == nil {
		t.Error("a certificate and another's key were taken")
	}
	tls := &TLS{ID: "abc"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, tls); got != "TLS abc" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestSourceNamesListsWhatTLSNames(t *testing.T) {
	sub := subscription(withTLS(inConfigMap("ca", "ca.crt"), "pair"))
	if got := strings.Join(SourceNames(sub), " "); got != "ca ci-signing pair" {
		t.Errorf("names are %s", got)
	}
	sub.Spec.TLS.CABundle = inSecret("bundle", "ca.crt")
	if got := strings.Join(SourceNames(sub), " "); got != "bundle ci-signing pair" {
		t.Errorf("names are %s", got)
	}
}
