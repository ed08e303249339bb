// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nexus.io/webhooks/test/redistest"
	"nexus.io/webhooks/test/stack"
)

// A dispatcher ends at its start, with the reason, where Redis would lose what it accepts.
func TestARedisThatDoesNotSuitIsRefused(t *testing.T) {
	bin, err := stack.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := stack.WriteKubeconfig(cluster.Config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		valkey bool // its WAITAOF can be taken away, and Debian's Redis may have none
		redis  []string
		flags  []string
		say    string
	}{
		"a policy that evicts": {
			redis: []string{"--maxmemory", "2gb", "--maxmemory-policy", "allkeys-lru"},
			say:   "maxmemory-policy is allkeys-lru, so a full Redis would drop accepted events: set maxmemory-policy noeviction",
		},
		"durability disk without a log": {flags: []string{"--durability=disk"}, say: "appendonly is off, so that --durability=disk"},
		"durability disk without WAITAOF": {
			valkey: true, redis: []string{"--appendonly", "yes", "--rename-command", "WAITAOF", ""},
			flags: []string{"--durability=disk"}, say: "it refuses WAITAOF, which --durability=disk rests on",
		},
		"durability replica without WAIT": {
			redis: []string{"--rename-command", "WAIT", ""}, flags: []string{"--durability=replica"}, say: "it refuses WAIT",
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := redistest.ForTest
			if c.valkey {
				start = redistest.WithWAITAOF
			}
			redis := start(t, c.redis...)
			args := append([]string{
				"--kubeconfig=" + kubeconfig, "--listen-address=127.0.0.1:0", "--metrics-address=127.0.0.1:0",
				"--redis-url=" + redis.URL(),
			}, c.flags...)
			d := stack.NewProcess("dispatcher", filepath.Join(t.TempDir(), "log"), filepath.Join(bin, "dispatcher"), args...)
			if err := d.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(d.Kill)
			defer time.AfterFunc(20*time.Second, d.Kill).Stop() // it ran
			state, err := d.Wait()
			if err == nil || state.ExitCode() != 1 || !strings.Contains(d.Tail(1), "the Redis of REDIS_URL does not suit: "+c.say) {
				t.Errorf("it ended as %v:\n%s\nwant 1 and, last, %q", state, d.Tail(5), c.say)
			}
		})
	}
}
