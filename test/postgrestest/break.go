// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Hang stops the server and all that works for it, until Resume: connections stay, and nobody answers.
func (s *Server) Hang() error { return s.signal(syscall.SIGSTOP) }

// Resume ends what Hang began.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) error {
	pids, err := s.pids()
	for _, pid := range pids {
		if failed := syscall.Kill(pid, signal); failed != nil && !errors.Is(failed, syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("send %s to postgres %d: %w", signal, pid, failed))
		}
	}
	return err
}

// Fill lets no file grow beyond 1 MiB until Free, as if the disk was full: that says ENOSPC where this says EFBIG. The
// server must have been made with --wal-segsize=1, so that it can go on to write its log.
func (s *Server) Fill() error { return s.limit("1048576") }

// Free ends what Fill began.
func (s *Server) Free() error { return s.limit("unlimited") }

// limit is done by a program of the server's user: it takes a right of its own to do so to others.
func (s *Server) limit(most string) error {
	pids, err := s.pids()
	for _, pid := range pids {
		cmd, failed := command("prlimit", "--fsize="+most+":unlimited", "--pid="+strconv.Itoa(pid))
		if failed != nil {
			return failed
		}
		out, failed := cmd.CombinedOutput()
		if failed != nil && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			err = errors.Join(err, fmt.Errorf("limit the files of postgres %d: %w: %s", pid, failed, out))
		}
	}
	return err
}

// pids are the server's, which comes first so that what it starts meanwhile is as it is, and those of its children.
func (s *Server) pids() ([]int, error) {
	pid := s.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, fmt.Errorf("find the children of postgres: %w", err)
	}
	pids := []int{pid}
	for _, field := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("find the children of postgres: %w", err)
		}
		pids = append(pids, child)
	}
	return pids, nil
}
