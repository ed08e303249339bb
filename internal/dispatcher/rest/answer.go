// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/json"
	"net/http"
)

var contentTypeJSON = []string{"application/json"}

// Answer writes a body of JSON. A client that is gone needs no answer, so a failed write is no error.
func Answer(w http.ResponseWriter, status int, body []byte) int {
	w.Header()["Content-Type"] = contentTypeJSON
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return status
}

// JSON answers with v.
func JSON(w http.ResponseWriter, status int, v any) int {
	return Answer(w, status, Marshal(v))
}

// Marshal writes JSON for people: <, > and & stay as they are. What has no JSON, such as a channel, becomes {}.
func Marshal(v any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return []byte("{}") // answers are made of what has JSON
	}
	return bytes.TrimRight(buffer.Bytes(), "\n")
}
