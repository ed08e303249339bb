// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package signing_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nexus.io/webhooks/internal/signing"
)

// consumer is a language for which the users' documents print a verification function. testdata holds that function
// to the letter; call reads the four arguments as a JSON array from standard input and prints true or false.
type consumer struct {
	program, install, function, call string
}

var consumers = map[string]consumer{
	"Python": {
		program: "python3", install: "apt-get install python3", function: "verify_webhook.py",
		call: "\nimport json, sys\nprint(json.dumps(verify_webhook(*json.load(sys.stdin))))\n",
	},
	"Node.js": {
		program: "node", install: "apt-get install nodejs", function: "verifyWebhook.js",
		call: "\nconsole.log(verifyWebhook(...JSON.parse(require('fs').readFileSync(0, 'utf8'))));\n",
	},
}

func TestConsumersFunctionsAcceptOurSignature(t *testing.T) {
	good := signing.Sign([]byte(secret), timestamp, []byte(body))
	forged := signing.Sign([]byte("not the secret"), timestamp, []byte(body))
	for name, c := range consumers {
		t.Run(name, func(t *testing.T) {
			if !c.verify(t, good) {
				t.Error("the documented function refuses our signature")
			}
			if c.verify(t, forged) {
				t.Error("the documented function takes a signature by another secret")
			}
		})
	}
}

func (c consumer) verify(t *testing.T, signature string) bool {
	t.Helper()
	program, err := exec.LookPath(c.program)
	if err != nil {
		t.Fatalf("%v: this test runs what consumers run; install it with: %s", err, c.install)
	}
	function, err := os.ReadFile(filepath.Join("testdata", c.function))
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), c.function)
	if err := os.WriteFile(script, append(function, c.call...), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments, err := json.Marshal([]string{body, timestamp, signature, secret})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, script)
	cmd.Stdin = strings.NewReader(string(arguments))
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", c.program, err)
	}
	return strings.TrimSpace(string(answer)) == "true"
}
