// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

const redisGrace = 10 * time.Second

// startRedis returns the URL of the Redis to use: the one that was named, or a redis-server from the PATH, or one
// inside this process, which outlives manager and dispatcher too.
func startRedis(ctx context.Context, o *Options, s *supervisor) (string, error) {
	if o.RedisURL != "" {
		return o.RedisURL, checkRedis(ctx, o, s)
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return embedRedis(s)
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return "", err
	}
	if err := startRedisServer(ctx, path, address, o, s); err != nil {
		return "", err
	}
	s.story.tell("redis", "%s from your PATH, at %s", path, address)
	return "redis://" + address, nil
}

// checkRedis never shows the URL: it may hold a password.
func checkRedis(ctx context.Context, o *Options, s *supervisor) error {
	options, err := redis.ParseURL(o.RedisURL)
	if err != nil {
		// Several hosts, or Sentinel: prepare found that the dispatcher knows such addresses.
		s.story.tell("redis", "yours, by REDIS_URL")
		return nil
	}
	options.MaxRetries, options.DialerRetries = -1, 1 // once: a person waits, and can start it and try again
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }() // it was only asked
	if err := client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("the Redis of REDIS_URL does not answer (%w): start it, or unset the variable to have one "+
			"started here", err)
	}
	s.story.tell("redis", "yours, at %s by REDIS_URL; no other dispatchers may share it with this one", options.Addr)
	return nil
}

func startRedisServer(ctx context.Context, path, address string, o *Options, s *supervisor) error {
	if err := os.MkdirAll(o.data("redis"), 0o700); err != nil {
		return fmt.Errorf("make the directory of Redis: %w", err)
	}
	_, port, _ := net.SplitHostPort(address) // freeAddress wrote it
	return s.start(ctx, &process{
		name: "redis", path: path, log: o.data("redis.log"), pid: o.data("redis.pid"), grace: redisGrace,
		arguments: []string{
			"--port", port, "--bind", "127.0.0.1", "--dir", o.data("redis"),
			"--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction",
		},
		ready: accepts(address),
	})
}

func embedRedis(s *supervisor) (string, error) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return "", fmt.Errorf("start the embedded Redis: %w", err)
	}
	s.stopped = append(s.stopped, server.Close)
	s.story.tell("redis", "embedded in this process at %s, for want of a redis-server on the PATH", server.Addr())
	return "redis://" + server.Addr(), nil
}
