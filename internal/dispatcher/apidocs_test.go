// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package dispatcher_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher"
	"nexus.io/webhooks/internal/dispatcher/apidocs"
)

// A route without an entry in the document is hidden, and an entry without a route is a lie: see the folder
// apidocs/openapi.
func TestTheDocumentListsWhatIsMounted(t *testing.T) {
	r := newRig(t)
	a, err := dispatcher.New(r.options())
	r.must(err)
	t.Cleanup(func() { _ = a.Close() })
	routes, err := a.Mounted()
	r.must(err)
	mounted := map[string]bool{} // by method and path: whether it needs no credentials
	for _, route := range routes {
		mounted[route.Method+" "+route.Path] = route.Open
	}
	text, err := apidocs.Document("test")
	r.must(err)
	var document struct {
		Paths map[string]map[string]struct{ Security *[]any }
	}
	r.must(json.Unmarshal(text, &document))
	documented := map[string]bool{}
	for path, operations := range document.Paths {
		for method, o := range operations {
			documented[strings.ToUpper(method)+" "+path] = o.Security != nil && len(*o.Security) == 0
		}
	}
	if diff := cmp.Diff(mounted, documented); diff != "" {
		t.Errorf("(-mounted +documented):\n%s", diff)
	}
}

func TestItServesTheDocumentAndThePage(t *testing.T) {
	a := newRig(t).start(nil)
	a.r.must(a.expect("/openapi.json", http.StatusOK)) // before it is ready, too
	a.r.must(a.expect("/docs", http.StatusOK))
}
