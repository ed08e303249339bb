// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package quickstart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// kubectl runs a command as the administrator, with input as its standard input, and returns what it prints.
func kubectl(ctx context.Context, o *Options, input string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, o.asset("kubectl"), arguments...)
	// Nothing of this goes to the person's own kubectl state.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+o.data("kubeconfig"), "KUBECACHEDIR="+o.data("kubectl-cache"))
	cmd.Stdin = strings.NewReader(input)
	var output, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.String(), nil
}

// kubectlName is how a person calls kubectl: by its name if it is on the PATH, else by the path of the one that was
// built.
func kubectlName(o *Options) string {
	if _, err := exec.LookPath("kubectl"); err == nil {
		return "kubectl"
	}
	return o.asset("kubectl")
}
