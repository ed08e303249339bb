// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package quickstart runs the whole service on one machine for a person who wants to see it work: a real API server
// and etcd, Redis, the manager and the dispatcher as their own processes under their own ServiceAccounts, and a
// receiver that verifies what arrives.
//
// It promises that everything listens on loopback only, that a manager, dispatcher or server that dies is started
// again, and that nothing it started outlives it. Each run starts afresh: what an earlier one left in the data
// directory goes.
//
// It knows the two programs by their flags and manifests, as an operator does, and must not know how they work.
package quickstart
