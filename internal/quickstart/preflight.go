// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"nexus.io/webhooks/internal/dispatcher/queue"
)

// etcd reserves 64 MB at once, and Redis and the logs grow.
const requiredMebibytes = 300

// leftovers are what a run leaves in the data directory, and the next one removes. Nothing else there is touched.
var leftovers = []string{
	"etcd", "apiserver", "redis", "kubectl-cache", "*.log", "*.pid", "*.kubeconfig", "kubeconfig", "sample.yaml",
}

// prepare checks what can be checked before anything is started, and makes the data directory. Call the returned
// function at the end.
func prepare(ctx context.Context, o *Options) (release func(), err error) {
	if err := checkPrograms(o); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	release, err = lock(o.data("lock"))
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		checkAddress(ctx, "--event-address", o.EventAddress),
		checkAddress(ctx, "--metrics-address", o.MetricsAddress),
		checkDistinct(o),
		checkRedisURL(o.RedisURL),
		checkSpace(o.Data, requiredMebibytes),
		clean(o),
	)
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func checkPrograms(o *Options) error {
	if o.Assets == "" {
		return errors.New("--assets is missing: `make quickstart` builds kube-apiserver, etcd and kubectl and names their " +
			"directory; so does the variable KUBEBUILDER_ASSETS")
	}
	programs := []string{
		o.asset("kube-apiserver"), o.asset("etcd"), o.asset("kubectl"),
		filepath.Join(o.Bin, "manager"), filepath.Join(o.Bin, "dispatcher"),
	}
	for _, program := range programs {
		if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
			return fmt.Errorf("there is no program %s: `make quickstart` builds what is missing", program)
		}
	}
	if _, err := os.Stat(filepath.Join(o.Config, "default", "kustomization.yaml")); err != nil {
		return fmt.Errorf("there are no manifests in %s: run this in the repository, or name them with --config", o.Config)
	}
	return nil
}

// lock keeps a second quickstart out of the same data directory.
func lock(path string) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another quickstart runs in %s (%w): end it with Ctrl-C, or give this one another "+
			"--data and other addresses", filepath.Dir(path), err)
	}
	return func() { _ = file.Close() }, nil
}

// checkAddress makes sure that only this machine reaches the address, and that it is free.
func checkAddress(ctx context.Context, flag, address string) error {
	ip, err := netip.ParseAddrPort(address)
	if err != nil || !ip.Addr().IsLoopback() {
		return fmt.Errorf("%s=%s is not an address of this machine alone: write 127.0.0.1:PORT", flag, address)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is taken: end what listens there, or choose another address: "+
			"make quickstart QUICKSTART_FLAGS=%s=127.0.0.1:PORT", address, flag)
	}
	if err != nil {
		return fmt.Errorf("listen on %s=%s: %w", flag, address, err)
	}
	return listener.Close()
}

func checkDistinct(o *Options) error {
	if o.EventAddress == o.MetricsAddress {
		return fmt.Errorf("--event-address and --metrics-address are both %s: the dispatcher needs two addresses",
			o.EventAddress)
	}
	return nil
}

// checkRedisURL reads the address as the dispatcher will, without dialling. Its error shows no password.
func checkRedisURL(address string) error {
	if address == "" {
		return nil
	}
	client, err := queue.Connect(address)
	if err != nil {
		return fmt.Errorf("REDIS_URL or --redis-url: %w; unset it to have a Redis started here", err)
	}
	return client.Close()
}

func checkSpace(directory string, mebibytes uint64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(directory, &disk); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", directory, err)
	}
	free := disk.Bavail * uint64(disk.Bsize) >> 20 //nolint:gosec // a block size is not negative
	if free < mebibytes {
		return fmt.Errorf("the disk of %s has %d MiB left and %d are needed: free some, or choose another --data",
			directory, free, mebibytes)
	}
	return nil
}

func clean(o *Options) error {
	for _, pattern := range leftovers {
		paths, err := filepath.Glob(o.data(pattern))
		if err != nil {
			return fmt.Errorf("look for what an earlier run left: %w", err)
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove what an earlier run left: %w", err)
			}
		}
	}
	return nil
}

// freeAddress returns a loopback address that nobody listens on just now.
func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
