// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// complete is a place in which prepare finds all that it wants.
func complete(t *testing.T) Options {
	t.Helper()
	root := t.TempDir()
	o := Options{
		Assets: filepath.Join(root, "assets"), Bin: filepath.Join(root, "bin"), Config: filepath.Join(root, "config"),
		Data: filepath.Join(root, "data"), EventAddress: "127.0.0.1:0", MetricsAddress: "[::1]:0",
	}
	for _, program := range []string{
		o.asset("kube-apiserver"), o.asset("etcd"), o.asset("kubectl"),
		filepath.Join(o.Bin, "manager"), filepath.Join(o.Bin, "dispatcher"),
	} {
		write(t, program, 0o700)
	}
	write(t, filepath.Join(o.Config, "default", "kustomization.yaml"), 0o600)
	return o
}

func write(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, mode); err != nil {
		t.Fatal(err)
	}
}

func TestPrepareSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	cases := map[string]struct {
		spoil func(*Options)
		want  []string
	}{
		"no assets": {func(o *Options) { o.Assets = "" }, []string{"--assets", "make quickstart"}},
		"no dispatcher": {
			func(o *Options) { o.Bin = "/nowhere" },
			[]string{"/nowhere/manager", "make quickstart"},
		},
		"no manifests": {func(o *Options) { o.Config = "/nowhere" }, []string{"/nowhere", "--config"}},
		"event port taken": {
			func(o *Options) { o.EventAddress = taken.Addr().String() },
			[]string{taken.Addr().String() + " is taken", "--event-address=127.0.0.1:PORT"},
		},
		"metrics port taken": {
			func(o *Options) { o.MetricsAddress = taken.Addr().String() },
			[]string{taken.Addr().String() + " is taken", "--metrics-address=127.0.0.1:PORT"},
		},
		"an address that others reach": {
			func(o *Options) { o.EventAddress = "0.0.0.0:8087" },
			[]string{"--event-address=0.0.0.0:8087", "127.0.0.1:PORT"},
		},
		"one address for two": {
			func(o *Options) { o.EventAddress, o.MetricsAddress = "127.0.0.1:0", "127.0.0.1:0" },
			[]string{"--event-address and --metrics-address are both 127.0.0.1:0"},
		},
		"a Redis of another scheme": {
			func(o *Options) { o.RedisURL = "http://localhost:6379" },
			[]string{"REDIS_URL", "redis, rediss", "unset it"},
		},
		"a Redis without scheme": {
			func(o *Options) { o.RedisURL = "localhost:6379" },
			[]string{"REDIS_URL", "redis://host:6379"},
		},
		"an address without host": {func(o *Options) { o.EventAddress = ":8087" }, []string{"127.0.0.1:PORT"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o := complete(t)
			tc.spoil(&o)
			_, err := prepare(t.Context(), &o)
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("prepare() = %v, want an error with %q", err, want)
				}
			}
		})
	}
}

func TestPrepareSaysHowMuchSpaceIsMissing(t *testing.T) {
	directory := t.TempDir()
	if err := checkSpace(directory, 0); err != nil {
		t.Errorf("checkSpace() = %v where nothing is needed", err)
	}
	const more = math.MaxUint64 // than any disk has
	message := fmt.Sprintf(`^the disk of %s has \d+ MiB left and %d are needed: free some, or choose another --data$`,
		regexp.QuoteMeta(directory), uint64(more))
	if err := checkSpace(directory, more); err == nil || !regexp.MustCompile(message).MatchString(err.Error()) {
		t.Errorf("checkSpace() = %v, want %s", err, message)
	}
}

func TestPrepareKeepsASecondQuickstartOut(t *testing.T) {
	o := complete(t)
	release, err := prepare(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(t.Context(), &o); err == nil || !strings.Contains(err.Error(), "another quickstart runs") {
		t.Errorf("the second prepare() = %v, want an error that names the first", err)
	}
	release()
	release, err = prepare(context.Background(), &o)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	release()
}

func TestPrepareRemovesWhatARunLeftAndNothingElse(t *testing.T) {
	o := complete(t)
	gone := []string{"etcd/member/wal", "redis/appendonly.aof", "manager.log", "manager.pid", "kubeconfig", "sample.yaml"}
	kept := []string{"notes.txt", "mine/etcd/file"}
	for _, path := range append(gone, kept...) {
		write(t, o.data(path), 0o600)
	}
	release, err := prepare(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, path := range gone {
		if _, err := os.Stat(o.data(path)); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	for _, path := range kept {
		if _, err := os.Stat(o.data(path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
