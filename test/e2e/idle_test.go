// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
)

// A dispatcher with nothing to do leaves Redis in peace, whatever parts it has.
func TestAnIdleDispatcherSendsRedisLittle(t *testing.T) {
	t.Parallel()
	const (
		settling = 3 * time.Second // what follows the deliveries has ended
		watching = 8 * time.Second
		most     = 5 // commands a second
	)
	s := start(t, 0)
	d := s.Further(t)
	d.Env = []string{"WEBHOOK_WATCH_NAMESPACES=" + s.Namespace} // those of other tests are not idle
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	if err := d.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Dispatchers = append(s.Dispatchers, d)
	for _, name := range []string{"idle-a", "idle-b", "idle-c"} {
		subscribe(t, s, name, "/ok/"+name, nil)
		p := publish(t.Context(), s, name, 1, time.Millisecond, 0)
		arrived(t, s, "/ok/"+name, p.accepted, 30*time.Second)
	}
	pass(t, settling)
	seen, sent := sentTo(t, s.Redis, watching), 0
	for _, n := range seen {
		sent += n
	}
	if perSecond := float64(sent) / watching.Seconds(); perSecond >= most {
		t.Errorf("an idle dispatcher sends Redis %.1f commands a second, want fewer than %d: %v", perSecond, most, seen)
	}
	t.Logf("%d commands in %s: %v", sent, watching, seen)
	if sent == 0 {
		t.Error("no command was seen, and a dispatcher that lives sends some")
	}
}

// sentTo counts by name what clients send for a while. INFO commandstats would count what scripts call too.
func sentTo(t *testing.T, server *redistest.Server, watching time.Duration) map[string]int {
	t.Helper()
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(watching)); err != nil {
		t.Fatal(err)
	}
	if _, err := connection.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	lines := bufio.NewScanner(connection)
	for lines.Scan() {
		// +1339518083.107412 [0 127.0.0.1:60866] "ping", and of a script [0 lua].
		source, command, found := strings.Cut(lines.Text(), "] ")
		if found && !strings.HasSuffix(source, " lua") {
			name, _, _ := strings.Cut(command, " ")
			seen[name]++
		}
	}
	if err := lines.Err(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("MONITOR ended early: %v", err)
	}
	return seen
}

// pass lets time pass.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	<-ctx.Done()
}
