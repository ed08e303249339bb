// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Whoever floods a listener with headers that do not end, from more connections than there may be, keeps nobody from
// any listener, and does not make the program take more memory than its Pod may.
func TestAFloodOfHeadersIsBounded(t *testing.T) {
	s := startBoth(t)
	limits := memoryLimits(t)
	doors := s.listeners()
	names := slices.Collect(maps.Keys(doors))
	slices.SortFunc(names, func(a, b string) int { return doors[a].most - doors[b].most }) // it leaves most behind
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			limit := limits[doors[name].program.Name]
			s.flood(t, doors[name], filler(60), limit) // far above the bound of a header
			if doors[name].most > 1000 {
				s.flood(t, doors[name], filler(15), limit) // just below it
				s.flood(t, doors[name], lines(15), limit)
				s.flood(t, doors[name], "Content-Length: 100\r\n"+lines(15)+"\r\n", limit) // whole; the body does not come
			}
		})
	}
	for name, d := range s.listeners() {
		text := d.method + " " + d.path + " HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-Filler: x\r\n", 10_000) + "\r\n"
		if statuses := d.exchange(t, text); len(statuses) != 1 || statuses[0] != 431 {
			t.Errorf("%s answers a header of %d bytes by %v", name, len(text), statuses)
		}
	}
}

// filler is a part of a header, of so many KiB.
func filler(kibibytes int) string {
	return strings.Repeat("X-Filler: "+strings.Repeat("x", 90)+"\r\n", kibibytes*10)
}

// lines is the same of short lines, which take most memory once they are read.
func lines(kibibytes int) string {
	var b strings.Builder
	for i := 0; b.Len() < kibibytes<<10; i++ {
		fmt.Fprintf(&b, "X%d: a\r\n", i)
	}
	return b.String()
}

// flood fills a listener with requests of which only so much of the header comes, and looks whether others get through.
func (s *scene) flood(t *testing.T, d door, header string, limit int) {
	h := &hostile{T: t, address: d.address}
	defer h.leave()
	count := h.allowed(d.most + d.most/10 + 200)
	part := d.method + " " + d.path + " HTTP/1.1\r\nHost: a\r\n" + header
	side(count, func() {
		if conn := h.dial(); conn != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.WriteString(conn, part) // or it had to make room for another, which is as well
		}
	})
	for other, o := range s.listeners() {
		at := time.Now()
		statuses := o.exchange(t, "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if took := time.Since(at); len(statuses) != 1 || statuses[0] != 404 || took > 10*time.Second {
			t.Errorf("%s answers %v after %s", other, statuses, took)
		}
	}
	files, memory := usage(t, d.program.Pid())
	t.Logf("%d connections with %d bytes of header: the %s has %d files open and took %d MiB at most", count, len(header),
		d.program.Name, files, memory>>20)
	if files > d.most+100 || memory > limit {
		t.Errorf("more than %d connections and what is open besides, or more than %d MiB", d.most, limit>>20)
	}
}

// memoryLimits are those of the programs' containers, in bytes.
func memoryLimits(t *testing.T) map[string]int {
	t.Helper()
	limits := map[string]int{}
	for _, o := range render(t, "default") {
		if o.GetKind() != "Deployment" {
			continue
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
			t.Fatal(err)
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			limits[c.Name] = int(c.Resources.Limits.Memory().Value())
		}
	}
	return limits
}

// usage is what a process has open, and the most memory that it has taken so far.
func usage(t *testing.T, pid int) (files, memory int) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatal("the kernel does not tell how much memory was taken")
	}
	kilobytes, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return len(open), kilobytes << 10
}
