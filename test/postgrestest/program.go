// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgrestest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// installed is where Debian puts the server's programs, which it leaves out of the PATH.
var installed = "/usr/lib/postgresql/*/bin"

// command is a program of PostgreSQL's, run as a user that it accepts, and killed with us.
func command(program string, args ...string) (*exec.Cmd, error) {
	path, err := find(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: servant()}
	return cmd, nil
}

// find prefers the PATH, and then the newest that is installed.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return path, nil
	}
	paths, _ := filepath.Glob(filepath.Join(installed, program))
	if len(paths) == 0 {
		return "", fmt.Errorf("PostgreSQL's %s is neither on the PATH nor in %s; hack/ensure-packages installs it "+
			"(Debian: apt-get install postgresql): %w", program, installed, err)
	}
	return slices.MaxFunc(paths, func(a, b string) int { return version(a) - version(b) }), nil
}

func version(path string) int {
	number, _, _ := strings.Cut(filepath.Base(filepath.Dir(filepath.Dir(path))), ".")
	n, _ := strconv.Atoi(number)
	return n
}

// servant is the user that runs the server where we are root, whom it refuses; nil otherwise.
func servant() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil // it will say itself that it does not run as root
}
