// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package fences

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBlocksAreReadToTheLetter(t *testing.T) {
	all, open := parse("# One\n```sh\na  \n\n# b\n```\ntext\n## Two `x`\n<!-- not run: why -->\n```\n{}\n```\n```go\n")
	want := []Fence{
		{Line: 2, Heading: "One", Language: "sh", Text: "a  \n\n# b\n"},
		{Line: 10, Heading: "Two `x`", Text: "{}\n", NotRun: "why"},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if open == nil || open.Line != 13 {
		t.Errorf("the block without an end is %v", open)
	}
}
