// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import "strings"

// span is a piece of a text.
type span struct {
	Kind string // "", code or strong
	Text string
}

// paragraphs reads what the document uses of Markdown: paragraphs, `code` and **strong**. It makes no HTML: that is the
// template's to write.
func paragraphs(text string) (all [][]span) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph != "" {
			all = append(all, spans(paragraph))
		}
	}
	return all
}

// spans reads the text of one paragraph.
func spans(text string) (all []span) {
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			all = append(all, span{"code", part})
			continue
		}
		for j, piece := range strings.Split(part, "**") {
			kind := ""
			if j%2 == 1 {
				kind = "strong"
			}
			if piece != "" {
				all = append(all, span{kind, piece})
			}
		}
	}
	return all
}
