// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"syscall"
	"testing"
)

func TestAPeakThatWasResetForgetsWhatWasFreed(t *testing.T) {
	const size = 256 << 20
	flags := syscall.MAP_ANON | syscall.MAP_PRIVATE | syscall.MAP_POPULATE
	block, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, flags)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Munmap(block); err != nil {
		t.Fatal(err)
	}
	before := peak(os.Getpid())
	if before < size {
		t.Fatalf("peak is %d bytes, want at least %d", before, size)
	}
	if err := resetPeak(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if after := peak(os.Getpid()); after > before-size/2 {
		t.Errorf("peak is still %d bytes of %d", after, before)
	}
}
