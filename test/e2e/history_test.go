// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/test/postgrestest"
	"nexus.io/webhooks/test/stack"
)

// startWithHistory runs dispatchers of whose deliveries Redis keeps one for each subscription, and PostgreSQL all.
func startWithHistory(t *testing.T, flags ...string) (*stack.Stack, *pgx.Conn) {
	t.Helper()
	url, err := postgrestest.ForTest(t).Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, 2, append(flags, "--postgres-url="+url, "--history-max-per-subscription=1")...)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return s, conn
}

// read gets JSON from a dispatcher.
func read(ctx context.Context, s *stack.Stack, dispatcher int, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Dispatchers[dispatcher].URL+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %d %s", path, response.StatusCode, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	return err
}

// shownDelivery is what a test looks at of a delivery.
type shownDelivery struct {
	ID          string  `json:"id"`
	EventID     string  `json:"event_id"`
	Status      string  `json:"status"`
	RequestBody *string `json:"request_body"`
	Attempts    []struct {
		ResponseBody *string `json:"response_body"`
	} `json:"attempts"`
}

const planted = "planted-secret-4c1f" // the beginning of each secret

// subscribeEcho subscribes an endpoint that repeats all it gets, and its signing key, with a header from a Secret.
func subscribeEcho(t *testing.T, s *stack.Stack, name string) {
	t.Helper()
	key := planted + "-signing-77ab0e1d2c3b"
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%v and %s", r.Header, key)
	}))
	t.Cleanup(echo.Close)
	for secret, data := range map[string]string{name + "-header": planted + "-header", name + "-key": key} {
		if err := s.Client.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: secret, Namespace: s.Namespace}, Type: v1alpha1.SecretTypeSigningKey,
			StringData: map[string]string{v1alpha1.DefaultSigningKey: data},
		}); err != nil {
			t.Fatal(err)
		}
	}
	subscribe(t, s, name, "/", func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.URL = echo.URL + "/x?token=" + planted
		spec.Signing = &v1alpha1.Signing{SecretRef: &v1alpha1.SigningKeyReference{Name: name + "-key"}}
		spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: &v1alpha1.HeaderValueSource{
			SecretKeyRef: v1alpha1.SecretKeyReference{Name: name + "-header", Key: v1alpha1.DefaultSigningKey},
		}}}
	})
}

// texts is all that the tables hold: a row and a body for each delivery of a test.
func texts(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, "SELECT d::text FROM nexus_webhooks.deliveries d "+
		"UNION ALL SELECT convert_from(body, 'UTF8') FROM nexus_webhooks.bodies")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// What Redis has forgotten is read from PostgreSQL, and none of it shows a secret, whatever the endpoint repeats.
func TestADeliveryIsReadAfterRedisForgotIt(t *testing.T) {
	s, conn := startWithHistory(t)
	subscribeEcho(t, s, "history")
	const events = 5
	publish(t.Context(), s, "history", events, time.Millisecond, 0, 1)
	var all, recent []shownDelivery
	eventually(t, 30*time.Second, "all are copied and most are forgotten", func(ctx context.Context) error {
		rows, err := texts(ctx, conn)
		err = errors.Join(err, read(ctx, s, 0, "/api/v1/deliveries?recent=true", &recent))
		if err == nil && (len(rows) != 2*events || len(recent) != 1) {
			err = fmt.Errorf("%d rows and bodies, %d deliveries in Redis", len(rows), len(recent))
		}
		return err
	})
	if err := read(t.Context(), s, 1, "/api/v1/deliveries?status=success", &all); err != nil || len(all) != events {
		t.Fatalf("%d are listed: %v", len(all), err)
	}
	oldest := all[events-1]
	var one shownDelivery
	if err := read(t.Context(), s, 1, "/api/v1/deliveries/"+oldest.ID, &one); err != nil || len(one.Attempts) != 1 {
		t.Fatalf("%+v, %v", one, err)
	}
	answer := one.Attempts[0].ResponseBody
	if one.RequestBody == nil || !strings.Contains(*one.RequestBody, oldest.EventID) || answer == nil {
		t.Errorf("it is shown as %+v", one)
	}
	rows, err := texts(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range rows {
		if strings.Contains(text, planted) {
			t.Errorf("a row shows a secret: %s", text)
		}
	}
}

// Whichever dispatcher dies or hangs, PostgreSQL gets each delivery, and once.
func TestACrashLosesAndDoublesNothingOfTheHistory(t *testing.T) {
	testLosing(t, "crashed", syscall.SIGKILL)
}

func TestADispatcherThatHangsLosesAndDoublesNothingOfTheHistory(t *testing.T) {
	testLosing(t, "hung", syscall.SIGSTOP)
}

func testLosing(t *testing.T, name string, how syscall.Signal) {
	s, conn := startWithHistory(t, "--lease-time=5")
	path := "/slow/20/" + name
	subscribe(t, s, name, path, func(spec *v1alpha1.WebhookSubscriptionSpec) {
		spec.MaxInFlight = new(int32(20))
	})
	load := make(chan *publishing, 1)
	go func() { load <- publish(t.Context(), s, name, 1500, 2*time.Millisecond, 0, 1) }()
	eventually(t, 30*time.Second, "something is copied", func(ctx context.Context) error {
		var copied bool
		err := conn.QueryRow(ctx, "SELECT count(*) > 50 FROM nexus_webhooks.deliveries").Scan(&copied)
		if err == nil && !copied {
			err = errors.New("too little")
		}
		return err
	})
	copier := s.Dispatchers[copierOf(t, s)]
	if err := copier.Signal(how); err != nil {
		t.Fatal(err)
	}
	if how == syscall.SIGSTOP { // later it goes on where it was; before, whoever publishes to it waits
		time.AfterFunc(12*time.Second, func() { _ = copier.Signal(syscall.SIGCONT) })
	}
	p := <-load
	arrived(t, s, path, p.accepted, 90*time.Second)
	eventually(t, 30*time.Second, "all is copied", func(ctx context.Context) error {
		rows, err := conn.Query(ctx, "SELECT event_id FROM nexus_webhooks.deliveries")
		if err != nil {
			return err
		}
		events, err := pgx.CollectRows(rows, pgx.RowTo[string])
		times := map[string]int{}
		for _, event := range events {
			times[event]++
		}
		for _, event := range p.accepted {
			if err == nil && times[event] != 1 {
				err = fmt.Errorf("%s is there %d times, among %d of %d", event, times[event], len(events), len(p.accepted))
			}
		}
		return err
	})
	audit(t, s)
}

// copierOf is the dispatcher that copies just now.
func copierOf(t *testing.T, s *stack.Stack) (dispatcher int) {
	t.Helper()
	redis := s.Redis.Client()
	defer func() { _ = redis.Close() }()
	eventually(t, 10*time.Second, "somebody copies", func(ctx context.Context) error {
		name, err := redis.Get(ctx, "nexus:{nexus0}:copier").Result()
		if err != nil {
			return err
		}
		for i, d := range s.Dispatchers {
			if strings.Contains(d.Log(), `"dispatcher":"`+name+`"`) || strings.Contains(d.Log(), "dispatcher="+name) {
				dispatcher = i
				return nil
			}
		}
		return fmt.Errorf("no dispatcher is called %s", name)
	})
	return dispatcher
}
