"""A small server that speaks as much of OpenAI's chat completions as a judge needs, in a thread."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | dict[str, Any]
"""The judge's text; or a status code; or the whole body."""


@dataclass
class FakeEndpoint:
    """What it was asked, and what it says to it."""

    say: Callable[[dict[str, Any]], Reply]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    error_headers: dict[str, str] = field(default_factory=dict)
    error_body: str = ""


@contextmanager
def fake_endpoint(say: Callable[[dict[str, Any]], Reply]) -> Iterator[FakeEndpoint]:
    """Give a running endpoint; `say` gets each request's body."""
    found = FakeEndpoint(say)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.bodies.append(body | {"path": self.path})
            found.headers.append(dict(self.headers))
            reply = found.say(body)
            status = reply if isinstance(reply, int) else 200
            if isinstance(reply, str):
                reply = {"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]}
            content = found.error_body if isinstance(reply, int) else json.dumps(reply)
            self.send_response(status)
            for name, value in found.error_headers.items() if status != 200 else ():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that does not wait is what some tests are about
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
