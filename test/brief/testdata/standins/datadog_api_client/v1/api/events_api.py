# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""Notes what would be sent, in place of sending it."""
import notes


class EventsApi:
    def __init__(self, client):
        self.client = client

    def create_event(self, body):
        notes.taken.append({"called": "create_event", "with": body})
