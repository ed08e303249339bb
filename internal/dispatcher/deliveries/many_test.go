// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package deliveries

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nexus.io/webhooks/internal/dispatcher/queue"
	"nexus.io/webhooks/internal/dispatcher/rest"
)

// crowd puts more deliveries of a subscription into the queue than are ever listed.
func (r *rig) crowd(subscription string) {
	r.t.Helper()
	key := r.client.Keys(r.t.Context(), "*:deliveries").Val()[0]
	for n := 0; n <= queue.MaxListed; {
		var fields []any
		for range 2000 {
			n++
			fields = append(fields, fmt.Sprintf("01990000-0000-7000-8000-%012d", n), subscription+"|0|1|4|build.completed|e")
		}
		if err := r.client.HSet(r.t.Context(), key, fields...).Err(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// What waits for one team is no reason to hide from another what is theirs.
func TestACrowdHidesNothingOfOthers(t *testing.T) {
	r := newRig(t, caller{"a"}, "paused-a/a", "paused-b/b")
	ids := append(r.publish("paused-a"), r.publish("paused-a")...)
	r.crowd("paused-b")
	newestFirst := []string{ids[1], ids[0]}
	for _, query := range []string{"", "?namespace=a", "?status=pending", "?recent=true", "?limit=2"} {
		if diff := cmp.Diff(newestFirst, r.list(query)); diff != "" {
			t.Errorf("list %s (-want +got):\n%s", query, diff)
		}
	}
	var waits pendingAnswer
	if status, _ := r.call("GET", path+"/pending", &waits); status != http.StatusOK || waits.Count != 2 {
		t.Errorf("pending answered %d %+v", status, waits)
	}
	var shown eventAnswer
	if status, _ := r.call("GET", "/api/v1/events/evt_1", &shown); status != http.StatusOK || len(shown.Deliveries) != 1 {
		t.Errorf("the event answered %d %+v", status, shown)
	}
	all := r.handlerFor(caller{"*"})
	if got := all.list("?limit=3"); len(got) != 3 || got[0] != ids[1] || got[1] != ids[0] {
		t.Errorf("of all: %q", got)
	}
	var p rest.Problem
	if status, _ := all.call("GET", path+"/pending", &p); status != http.StatusUnprocessableEntity ||
		len(p.Errors) != 1 || p.Errors[0].Field != "subscription_id" {
		t.Errorf("what waits for all answered %d %+v", status, p)
	}
}

// Who may change nothing takes no place from those who may, and hears so.
func TestABulkChangeIsForThoseWhoMayChangeAnything(t *testing.T) {
	r := newRig(t, caller{"elsewhere"}, "fails/a")
	for _, target := range []string{path + "/retry", path + "/cancel"} {
		w := r.send(target, `{"event_type": "build.completed"}`)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "webhooksubscriptions/deliveries") {
			t.Errorf("%s answered %d %s", target, w.Code, w.Body)
		}
	}
}

func TestADeliveryThatIsRetriedKeepsTheTimeAtWhichItWasMade(t *testing.T) {
	r := newRig(t, caller{"*"}, "waits/a")
	id := r.publish("waits")[0]
	before := r.become(id, retrying).CreatedAt
	if status, _ := r.call("POST", path+"/"+id+"/cancel", nil); status != http.StatusOK {
		t.Fatal(status)
	}
	ended := r.become(id, "canceled")
	for tick := time.Now().UnixMilli(); time.Now().UnixMilli() == tick; { // its id has the time in milliseconds
	}
	if status, _ := r.call("POST", path+"/"+id+"/retry", nil); status != http.StatusAccepted {
		t.Fatal(status)
	}
	again := r.become(id, retrying)
	if !before.Equal(*ended.CreatedAt) || !before.Equal(*again.CreatedAt) {
		t.Errorf("made at %v, when it ended at %v, and again at %v", before, ended.CreatedAt, again.CreatedAt)
	}
}
