// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import "syscall"

// attributes put a child into a process group of its own, so that a terminal's Ctrl-C reaches only the quickstart and
// the end is in order, and have the kernel kill it should the quickstart itself be killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
