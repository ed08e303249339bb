# Copyright The Nexus Webhooks Authors.
# SPDX-License-Identifier: Apache-2.0
"""As much of redis-py as the document's idempotent handler needs, against the real server at REDIS_ADDRESS."""
import os
import socket


class Redis:
    def get(self, key):
        return self._call("GET", key)

    def setex(self, key, seconds, value):
        return self._call("SETEX", key, seconds, value)

    def _call(self, *words):
        host, port = os.environ["REDIS_ADDRESS"].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            text = "*%d\r\n" % len(words)
            for word in map(str, words):
                text += "$%d\r\n%s\r\n" % (len(word.encode()), word)
            connection.sendall(text.encode())
            answer = connection.makefile("rb")
            line = answer.readline()
            if line.startswith(b"-"):
                raise RuntimeError(line.decode())
            if not line.startswith(b"$"):
                return line
            size = int(line[1:])
            return None if size < 0 else answer.read(size)
