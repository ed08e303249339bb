// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apidocs describes the HTTP API: to programs by an OpenAPI 3.1 document (/openapi.json), to people by one page
// (/docs) that is made of it.
//
// The document is written by hand, in the files of the folder openapi, one for each part of the API. Tests hold it to
// what the dispatcher mounts, takes and answers, so that it cannot drift. The page works without any network but the
// way to the dispatcher: nothing in it is loaded from anywhere, and its policy forbids it.
//
// It promises that both are made once, at the start. It knows no other room: what it tells of them is text.
package apidocs
