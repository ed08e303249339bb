# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""As much of FastAPI as the document's handler needs."""
import json


class HTTPException(Exception):
    def __init__(self, status_code, detail=None):
        super().__init__(detail)
        self.status_code, self.detail = status_code, detail


class Request:
    def __init__(self, headers, raw):
        self.headers, self.raw = headers, raw

    async def body(self):
        return self.raw

    async def json(self):
        return json.loads(self.raw)


class FastAPI:
    def __init__(self):
        self.routes = {}

    def post(self, path):
        def register(handler):
            self.routes[path] = handler
            return handler
        return register
