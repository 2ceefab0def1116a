# SPDX-License-Identifier: Apache-2.0
"""One connection to the control socket of dmfs: JSON-RPC 2.0, a line a message."""
import json
import socket

from processes import BenchError


class Control:
    def __init__(self, path, timeout=600):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.replies = self.socket.makefile("rb")
        self.last_id = 0

    def call(self, method, **params):
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params}
        self.socket.sendall(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        line = self.replies.readline()
        if not line:
            raise BenchError(f"{method}: the daemon closed the connection")
        reply = json.loads(line)
        if "error" in reply:
            raise BenchError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def make(self, name, targets):
        """create + load + resume; targets: (start, length, type, params)"""
        self.call("create", name=name)
        self.load(name, targets)
        self.call("resume", name=name)

    def load(self, name, targets):
        self.call("load", name=name,
                  targets=[dict(zip(("start", "length", "type", "params"), t)) for t in targets])

    def close(self):
        self.replies.close()
        self.socket.close()
