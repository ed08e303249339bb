// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"io"
	"path/filepath"

	"github.com/spf13/pflag"
)

// Options say where the quickstart finds things, where it puts things and where it listens.
type Options struct {
	// Assets is the directory of kube-apiserver, etcd and kubectl.
	Assets string
	// Bin is the directory of manager and dispatcher.
	Bin string
	// Config is the directory of the manifests, of which config/default is rendered.
	Config string
	// Data is the directory for state, logs, pids and kubeconfigs.
	Data string
	// EventAddress is the loopback address (host:port) of the event API.
	EventAddress string
	// MetricsAddress is the loopback address (host:port) of the dispatcher's metrics.
	MetricsAddress string
	// RedisURL is a Redis to use as it is; without it one is started.
	RedisURL string
	// Output is where the story is told.
	Output io.Writer
}

// Bind adds a flag for each option but Output to flags, with the repository's places as defaults.
func (o *Options) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.Assets, "assets", o.Assets, "directory of kube-apiserver, etcd and kubectl")
	flags.StringVar(&o.Bin, "bin", "bin", "directory of manager and dispatcher")
	flags.StringVar(&o.Config, "config", "config", "directory of the manifests")
	flags.StringVar(&o.Data, "data", ".quickstart", "directory for state, logs, pids and kubeconfigs")
	flags.StringVar(&o.EventAddress, "event-address", "127.0.0.1:8087", "loopback address of the event API")
	flags.StringVar(&o.MetricsAddress, "metrics-address", "127.0.0.1:8088", "loopback address of the dispatcher's metrics")
	flags.StringVar(&o.RedisURL, "redis-url", o.RedisURL,
		"Redis to use (variable REDIS_URL); without it a redis-server from the PATH, else an embedded one")
}

func (o *Options) asset(name string) string { return filepath.Join(o.Assets, name) }

func (o *Options) data(elements ...string) string {
	return filepath.Join(append([]string{o.Data}, elements...)...)
}
