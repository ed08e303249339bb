// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

package apidocs

import (
	"cmp"
	"fmt"
	"net/http"

	"nexus.io/webhooks/internal/dispatcher/rest"
)

// New returns the routes of the document and of the page; version is that of the program. An error means that the
// embedded files are broken.
func New(version string) ([]rest.Route, error) {
	root, err := load(cmp.Or(version, "dev"))
	if err != nil {
		return nil, err
	}
	page, err := render(root)
	if err != nil {
		return nil, fmt.Errorf("render the page of the API: %w", err)
	}
	document := pretty(root)
	return []rest.Route{
		{Method: http.MethodGet, Path: "/openapi.json", Open: true, Serve: serve("application/json", document, nil)},
		{Method: http.MethodGet, Path: "/docs", Open: true, Serve: serve("text/html; charset=utf-8", page, pageHeaders())},
	}, nil
}

// Document returns the OpenAPI document as JSON.
func Document(version string) ([]byte, error) {
	root, err := load(version)
	if err != nil {
		return nil, err
	}
	return pretty(root), nil
}

func serve(contentType string, body []byte, headers map[string]string) rest.Endpoint {
	return func(w http.ResponseWriter, _ *rest.Request) int {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache") // an upgrade shows at once
		for name, value := range headers {
			h.Set(name, value)
		}
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(body) // a client that is gone needs no answer
		return http.StatusOK
	}
}
