# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the example did during a request."""
taken = []
