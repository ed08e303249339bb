# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""Receives webhooks as an example of the document does.

consumer.py EXAMPLE ROLE SECRET_FILE

Prints where it listens, then for each request a line of JSON: what came, what was answered, and what the example did.
What the example leaves to its reader (the functions that it calls and does not define) takes notes.
"""
import asyncio
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import fastapi
import notes

path, role, secret_file = sys.argv[1:]
example = {}
with open(path, encoding="utf-8") as file:
    exec(compile(file.read(), path, "exec"), example)


def note_of(name):
    def function(data):
        notes.taken.append({"called": name, "with": data})
    return function


async def process_event(event):
    note_of("process_event")(event)


for name in ("handle_build_completed", "handle_deployment_completed"):
    example.setdefault(name, note_of(name))
example["process_event"] = process_event
lost = set()  # answers that were


def verify(request, url):
    with open(secret_file, encoding="utf-8") as file:
        secret = file.read()
    good = example["verify_webhook"](
        request.raw.decode(), request.headers["X-Nexus-Timestamp"], request.headers["X-Nexus-Signature-256"], secret)
    return 200 if good else 401, None


def application(request, url):
    handler = example["app"].routes[url]
    try:
        return 200, asyncio.run(handler(request))
    except fastapi.HTTPException as refusal:
        return refusal.status_code, {"detail": refusal.detail}


def idempotent(request, url):
    """The first answer to each delivery gets lost, so that it comes again."""
    example["request"] = request
    result = asyncio.run(example["handle_webhook"](json.loads(request.raw)))
    delivery = request.headers["X-Nexus-Delivery"]
    status = 200 if delivery in lost else 503
    lost.add(delivery)
    return status, result


def function(request, url):
    example[role](json.loads(request.raw))
    return 200, None


roles = {"verify": verify, "application": application, "idempotent": idempotent}


class Consumer(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        notes.taken.clear()
        status, result = roles.get(role, function)(fastapi.Request(self.headers, raw), self.path)
        answer = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        print(json.dumps({"headers": dict(self.headers), "body": raw.decode(), "status": status, "result": result,
                          "notes": notes.taken}), flush=True)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Consumer)
print(json.dumps({"address": "127.0.0.1:%d" % server.server_port}), flush=True)
server.serve_forever()
