// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package brief

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// consumer is a process that receives webhooks by an example of the document.
type consumer struct {
	url     string
	secret  string // the file that it reads its secret from
	visible chan visit
}

// visit is one request to a consumer, as the consumer tells of it.
type visit struct {
	Address string // in the first line, which is about no request
	Headers map[string]string
	Body    string
	Status  int // what it answered
	Result  any // and with what
	Notes   []struct {
		Called string
		With   any
	}
}

// consume runs an example in Python or Node.js.
func (w *world) consume(t *testing.T, example, role string, environment ...string) *consumer {
	t.Helper()
	c := &consumer{secret: filepath.Join(t.TempDir(), "secret"), visible: make(chan visit, 100)}
	program, script := "python3", "consumer.py"
	if filepath.Ext(example) == ".javascript" {
		program, script = "node", "consumer.js"
	}
	command := exec.CommandContext(t.Context(), program, filepath.Join("testdata", script), example, role, c.secret)
	standIns, err := filepath.Abs("testdata/standins")
	if err != nil {
		t.Fatal(err)
	}
	command.Env = append(append(os.Environ(), "PYTHONPATH="+standIns, "PYTHONDONTWRITEBYTECODE=1"), environment...)
	command.Stderr = t.Output()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("run %s: %v", program, err)
	}
	go func() {
		defer close(c.visible)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var v visit
			if json.Unmarshal(lines.Bytes(), &v) == nil {
				c.visible <- v
			}
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	c.url = "http://" + c.next(t).Address
	return c
}

// trust gives the consumer the secret.
func (c *consumer) trust(t *testing.T, secret string) {
	t.Helper()
	if err := os.WriteFile(c.secret, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
}

// next waits for the next request to have been answered.
func (c *consumer) next(t *testing.T) visit {
	t.Helper()
	select {
	case v, running := <-c.visible:
		if !running {
			t.Fatal("the consumer ended")
		}
		return v
	case <-time.After(patience):
		t.Fatalf("no request came in %s", patience)
	}
	return visit{}
}

// replay sends a request that came once more to a path, with another body.
func (c *consumer) replay(t *testing.T, v visit, path, body string) visit {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range v.Headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return c.next(t)
}

// acceptsOnlyWhatIsSigned sends what came again: as it is, with another body, and with another signature.
func (c *consumer) acceptsOnlyWhatIsSigned(t *testing.T, came visit, path string) {
	t.Helper()
	if came.Status != http.StatusOK {
		t.Errorf("a delivery was answered %d: %+v", came.Status, came)
	}
	if again := c.replay(t, came, path, came.Body); again.Status != http.StatusOK {
		t.Errorf("the same once more was answered %d", again.Status)
	}
	if got := c.replay(t, came, path, strings.Replace(came.Body, "brief", "brieF", 1)); got.Status != http.StatusUnauthorized {
		t.Errorf("another body was answered %d", got.Status)
	}
	const header = "X-Nexus-Signature-256"
	last := len(came.Headers[header]) - 1
	other := map[bool]string{true: "1", false: "0"}[came.Headers[header][last] == '0']
	came.Headers[header] = came.Headers[header][:last] + other
	if got := c.replay(t, came, path, came.Body); got.Status != http.StatusUnauthorized {
		t.Errorf("another signature was answered %d", got.Status)
	}
}
