"""Feedback through a real server that dies: what was answered with 200 is in the store, whatever kills it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from tests.experience.test_store import BASE

from klimb.experience.store import Store

SERVER = """
import sys, uvicorn
from pathlib import Path
from fastapi import FastAPI
from klimb.experience.store import Store
from klimb.web.serve.feedback import feedback_routes
from klimb.web.serve.feedback_intake import FeedbackIntake
from klimb.web.serve.limits import Limits
from klimb.web.serve.security import Secured
store = Store(Path(sys.argv[1]))
samples = {sample.sample_id: sample for sample in store.samples()}
app = FastAPI()
app.include_router(feedback_routes(FeedbackIntake(store, find=samples.get)))
secured = Secured(app, limits=Limits(body_seconds=1.0, requests_per_minute=100_000))
uvicorn.run(secured, port=int(sys.argv[2]), log_level="error", lifespan="off")
"""


@pytest.fixture
def server(tmp_path: Path):
    store = Store(tmp_path / "store")
    store.append([replace(BASE, sample_id=f"chatcmpl-{number}") for number in range(8)])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(store.folder), str(port)])
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield store, port, process
    process.kill()
    process.wait()


def post_until_it_dies(port: int, client: int, taken: set[str]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(10_000):
        row = {"completion_id": f"chatcmpl-{client}", "score": number / 100, "feedback_id": f"{client}-{number}"}
        try:
            connection.request("POST", "/v1/feedback", json.dumps(row), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status == 200 and json.loads(answer.read())["status"] == "added":
                taken.add(f"{client}-{number}")
        except (OSError, HTTPException, ValueError):
            return


@pytest.mark.slow
def test_what_was_confirmed_is_in_the_store_after_a_kill(server):
    store, port, process = server
    taken: set[str] = set()
    clients = [threading.Thread(target=post_until_it_dies, args=(port, client, taken)) for client in range(8)]
    for client in clients:
        client.start()
    for _ in range(600):
        if len(taken) >= 100:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    for client in clients:
        client.join()
    assert len(taken) >= 100
    there = {row.feedback_id for row in store.feedback_of([f"chatcmpl-{client}" for client in range(8)])}
    assert taken <= there
    assert len(there - taken) <= 8, "beside those in flight"


@pytest.mark.slow
def test_a_client_that_sends_a_byte_now_and_then_holds_nothing(server):
    _, port, _ = server
    with socket.create_connection(("127.0.0.1", port), 10) as slow:
        lines = (
            "POST /v1/feedback HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            "Content-Length: 99",
        )
        head = "\r\n".join((*lines, "", ""))
        slow.sendall(head.encode() + b"{")
        began = time.monotonic()
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 8
