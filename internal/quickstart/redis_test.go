// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// ping tells whether a Redis answers at url.
func ping(t *testing.T, url string) error {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	return client.Ping(t.Context()).Err()
}

func TestRedisIsTheServerOfThePathOrAnEmbeddedOne(t *testing.T) {
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: this test starts a real one; install it with: apt-get install redis-server", err)
	}
	cases := map[string]struct{ path, told string }{
		"a redis-server on the PATH": {filepath.Dir(server), server + " from your PATH"},
		"no redis-server":            {t.TempDir(), "embedded in this process"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", tc.path)
			var told transcript
			s := &supervisor{story: newStory(&told)}
			url, err := startRedis(t.Context(), &Options{Data: t.TempDir()}, s)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(told.String(), tc.told) {
				t.Errorf("told %q, want %q in it", told.String(), tc.told)
			}
			if err := ping(t, url); err != nil {
				t.Errorf("ping %s: %v", url, err)
			}
			s.stop()
			if err := ping(t, url); err == nil {
				t.Errorf("%s still answers after stop", url)
			}
		})
	}
}

func TestARedisThatDoesNotAnswerEndsTheStartWithoutShowingItsPassword(t *testing.T) {
	address, err := freeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var told transcript
	s := &supervisor{story: newStory(&told)}
	_, err = startRedis(t.Context(), &Options{RedisURL: "redis://:hunter2@" + address}, s)
	if err == nil || !strings.Contains(err.Error(), "unset the variable") {
		t.Errorf("startRedis() = %v, want an error that says what to do", err)
	}
	if err != nil && strings.Contains(err.Error()+told.String(), "hunter2") {
		t.Errorf("the password shows in %v or %q", err, told.String())
	}
}
