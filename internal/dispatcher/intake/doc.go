// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package intake is the HTTP API that events come in by.
//
// It promises that 202 is only said once every matching delivery is in the queue, that a refusal is problem+json
// (RFC 9457) that says what is wrong and what to do, and that no request holds more memory or time than the limits
// allow. It ends at the queue: it knows nothing of how deliveries are sent, nor of Redis or Kubernetes.
package intake
