# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""Notes what would be sent, in place of sending it."""
import notes


def post(url, json=None):
    notes.taken.append({"called": url, "with": json})
