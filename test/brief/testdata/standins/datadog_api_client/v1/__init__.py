# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
