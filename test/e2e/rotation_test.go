// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/stack"
)

// consumer knows one secret and looks at X-Nexus-Signature-256 alone: what that does not fit gets 401.
type consumer struct {
	*httptest.Server

	mu      sync.Mutex
	secret  string
	taken   map[string]bool // events
	refused int
	lastAlt string
}

func newConsumer(t *testing.T) *consumer {
	t.Helper()
	c := &consumer{taken: map[string]bool{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *consumer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var envelope struct{ ID string }
	_ = json.Unmarshal(body, &envelope)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastAlt = r.Header.Get("X-Nexus-Signature-256-Alt")
	mac := hmac.New(sha256.New, []byte(c.secret))
	mac.Write([]byte(r.Header.Get("X-Nexus-Timestamp") + "." + string(body)))
	if "sha256="+hex.EncodeToString(mac.Sum(nil)) != r.Header.Get("X-Nexus-Signature-256") {
		c.refused++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	c.taken[envelope.ID] = true
}

func (c *consumer) learn(secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secret = secret
}

// counts are what it took and what it refused so far, and whether the last request had two signatures.
func (c *consumer) counts() (taken, refused int, both bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken), c.refused, c.lastAlt != ""
}

func (c *consumer) waitForTaken(t *testing.T, want int) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%d events are taken", want), func(context.Context) error {
		if taken, refused, _ := c.counts(); taken < want {
			return fmt.Errorf("%d are, %d requests were refused", taken, refused)
		}
		return nil
	})
}

// subscribeConsumer applies a subscription to a consumer that retries after a second.
func subscribeConsumer(t *testing.T, s *stack.Stack, name string, c *consumer, signing *v1alpha1.Signing,
) *v1alpha1.WebhookSubscription {
	t.Helper()
	return subscribe(t, s, name, "", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.URL = c.URL
		spec.Signing = signing
		spec.Retry = &v1alpha1.RetryPolicy{InitialDelaySeconds: new(int32(1)), MaxDelaySeconds: new(int32(1))}
	})
}

func readSecret(t *testing.T, s *stack.Stack, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: s.Namespace, Name: name}, secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// rotate asks for a new key, waits until it is there, and returns it.
func rotate(t *testing.T, s *stack.Stack, sub *v1alpha1.WebhookSubscription, request string) string {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationRotateRequested, request))
	if err := s.Client.Patch(t.Context(), sub, patch); err != nil {
		t.Fatal(err)
	}
	name := v1alpha1.GeneratedSecretName(sub.Name)
	eventually(t, 30*time.Second, "the key is rotated", func(context.Context) error {
		if got := readSecret(t, s, name).Annotations[v1alpha1.AnnotationRotatedFor]; got != request {
			return fmt.Errorf("it answers %q", got)
		}
		return nil
	})
	return string(readSecret(t, s, name).Data[v1alpha1.DefaultSigningKey])
}

// signsByBoth publishes until a request arrives with two signatures, and returns how many events that took.
func signsByBoth(t *testing.T, s *stack.Stack, project string, c *consumer) int {
	t.Helper()
	n := 0
	eventually(t, 20*time.Second, "requests carry two signatures", func(context.Context) error {
		accepted(t, s, project, fmt.Sprintf("%s-probe-%d", project, n))
		n++
		c.waitForTaken(t, n)
		if _, _, both := c.counts(); !both {
			return fmt.Errorf("after %d events they do not", n)
		}
		return nil
	})
	return n
}

const overlapEvents = 20

// Two consumers in an overlap, each with one secret and one header: both take all, at the second attempt at the latest.
func TestInAnOverlapConsumersOfTheOldAndOfTheNewSecretTakeEveryEvent(t *testing.T) {
	s := start(t, 2)
	behind, ahead := newConsumer(t), newConsumer(t)
	subBehind := subscribeConsumer(t, s, "behind", behind, nil)
	subAhead := subscribeConsumer(t, s, "ahead", ahead, nil)
	behind.learn(string(readSecret(t, s, "behind-signing").Data["secret"]))
	ahead.learn(string(readSecret(t, s, "ahead-signing").Data["secret"]))

	rotate(t, s, subBehind, "1")
	newSecret := rotate(t, s, subAhead, "1")
	probesBehind, probesAhead := signsByBoth(t, s, "behind", behind), signsByBoth(t, s, "ahead", ahead)
	ahead.learn(newSecret)
	_, refusedBehind, _ := behind.counts()
	_, refusedAhead, _ := ahead.counts()
	for i := range overlapEvents {
		accepted(t, s, "behind", fmt.Sprintf("behind-%d", i))
		accepted(t, s, "ahead", fmt.Sprintf("ahead-%d", i))
	}
	behind.waitForTaken(t, probesBehind+overlapEvents)
	ahead.waitForTaken(t, probesAhead+overlapEvents)
	// By turns: the consumer that is behind refuses each first attempt, the other one none.
	if _, refused, _ := behind.counts(); refused-refusedBehind != overlapEvents {
		t.Errorf("the consumer that is behind refused %d requests of %d events", refused-refusedBehind, overlapEvents)
	}
	if _, refused, _ := ahead.counts(); refused != refusedAhead {
		t.Errorf("the consumer that is ahead refused %d requests", refused-refusedAhead)
	}
	audit(t, s)
}

// A referenced Secret that is edited while no manager runs has its overlap all the same, and the manager dates it later.
func TestASecretThatIsEditedWithoutTheManagerHasAnOverlap(t *testing.T) {
	const before, after = "the-key-before-it-was-edited", "the-key-after-it-was-edited"
	s := start(t, 1)
	c := newConsumer(t)
	c.learn(before)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "own", Namespace: s.Namespace},
		Type:       v1alpha1.SecretTypeSigningKey, StringData: map[string]string{"secret": before},
	}
	if err := s.Client.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	sub := subscribeConsumer(t, s, "edited", c, &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: "own"}})
	s.Manager.Kill()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"stringData":{"secret":"`+after+`"}}`))
	if err := s.Client.Patch(t.Context(), secret, patch); err != nil {
		t.Fatal(err)
	}
	probes := signsByBoth(t, s, "edited", c)
	take := func(part string) {
		t.Helper()
		for i := range overlapEvents {
			accepted(t, s, "edited", fmt.Sprintf("edited-%s-%d", part, i))
		}
		probes += overlapEvents
		c.waitForTaken(t, probes)
	}
	take("old")
	c.learn(after)
	take("new")
	if err := s.Manager.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the manager dates the overlap", func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		if got := sub.Status.SigningSecret; got == nil || got.PreviousValidUntil == nil {
			return fmt.Errorf("status.signingSecret is %+v", got)
		}
		return nil
	})
	c.learn(before)
	take("dated")
	audit(t, s)
}

// The previous key stops at its time though no manager runs, and the manager removes it once it is back.
func TestAnOverlapEndsWithoutTheManager(t *testing.T) {
	s := start(t, 1)
	c := newConsumer(t)
	sub := subscribeConsumer(t, s, "ended", c,
		&v1alpha1.Signing{Rotation: &v1alpha1.KeyRotation{GracePeriodSeconds: new(int32(8))}})
	c.learn(string(readSecret(t, s, "ended-signing").Data["secret"]))
	secret := rotate(t, s, sub, "1")
	s.Manager.Kill()
	until := v1alpha1.PreviousValidUntil(readSecret(t, s, "ended-signing"))
	probes := signsByBoth(t, s, "ended", c)
	c.learn(secret)
	eventually(t, 30*time.Second, "requests carry one signature", func(context.Context) error {
		accepted(t, s, "ended", fmt.Sprintf("ended-%d", probes))
		probes++
		c.waitForTaken(t, probes)
		if _, _, both := c.counts(); both {
			return fmt.Errorf("they carry two")
		}
		return nil
	})
	if early := time.Until(until); early > 0 {
		t.Errorf("the previous key stopped %s before its time", early)
	}
	if _, held := readSecret(t, s, "ended-signing").Data["previous"]; !held {
		t.Error("the previous key was removed though no manager runs, so this shows nothing")
	}
	if err := s.Manager.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the previous key is removed", func(context.Context) error {
		left := readSecret(t, s, "ended-signing")
		if _, held := left.Data["previous"]; held || !v1alpha1.PreviousValidUntil(left).IsZero() {
			return fmt.Errorf("it holds %d keys, annotations %v", len(left.Data), left.Annotations)
		}
		return nil
	})
	audit(t, s)
}
