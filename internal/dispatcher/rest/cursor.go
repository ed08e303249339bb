// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
)

const maxCursor = 1024

// Cursor makes the opaque text that stands for the place in a list after key, which must have JSON.
func Cursor(key any) string {
	return base64.RawURLEncoding.EncodeToString(Marshal(key))
}

// NextPage tells that a list goes on after key: a Link header with the request's own parameters and the cursor.
func NextPage(w http.ResponseWriter, r *http.Request, key any) {
	query := r.URL.Query()
	query.Set("cursor", Cursor(key))
	next := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: query.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

func decodeCursor(text string, into any) error {
	if len(text) > maxCursor {
		return errors.New("too long")
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(key))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if decoder.More() {
		return errors.New("more than one value")
	}
	return nil
}
