// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package quickstart

import "syscall"

// attributes put a child into a process group of its own, so that a terminal's Ctrl-C reaches only the quickstart and
// the end is in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
