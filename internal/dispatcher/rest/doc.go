// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package rest is the grammar of the HTTP API: problems, strict JSON bodies, query parameters, cursors and routes.
//
// It promises that every refusal is problem+json (RFC 9457) that names what is wrong and says what would be right, that
// nothing unknown is passed over in silence, and that a body takes no more memory than its limit allows. It knows no
// subject: neither events nor subscriptions, nor how a caller is told from another.
package rest
