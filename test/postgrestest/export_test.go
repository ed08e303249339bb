// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package postgrestest

import "testing"

// SetInstalled changes where the server is looked for, for one test.
func SetInstalled(t *testing.T, pattern string) {
	before := installed
	installed = pattern
	t.Cleanup(func() { installed = before })
}
