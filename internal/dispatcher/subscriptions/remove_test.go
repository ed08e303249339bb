// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package subscriptions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "k8s.io/client-go/rest"

	"nexus.io/webhooks/api/v1alpha1"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// A cache may still show one that is gone when another has its name: that one stays.
func TestDeletingNamesTheObjectAndNotOnlyItsName(t *testing.T) {
	old := sub("team-a", "reused", 0, "*")
	asked := make(chan metav1.DeleteOptions, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var options metav1.DeleteOptions
		if err := json.NewDecoder(r.Body).Decode(&options); err != nil || r.Method != http.MethodDelete {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		asked <- options
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`)
	}))
	t.Cleanup(api.Close)
	h := newHandlerWithLog()
	h.Cache = &seen{subs: []*v1alpha1.WebhookSubscription{old}}
	var err error
	if h.cluster, err = connect(&kube.Config{Host: api.URL}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	rest.Handler(h.routes(), rest.HandlerOptions{Authenticator: rest.Anybody{}}).ServeHTTP(w,
		httptest.NewRequest(http.MethodDelete, path+"/"+idOf(old), nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if options := <-asked; options.Preconditions == nil || options.Preconditions.UID == nil || *options.Preconditions.UID != old.UID {
		t.Errorf("asked to delete with %+v", options)
	}
}
