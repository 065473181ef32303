"""A real Open WebUI in front of the server: its thumbs reach the very samples that were served.

Skipped without one: it wants an environment of its own (docs/open-webui.md). `KLIMB_OPEN_WEBUI` is the path of its
command `open-webui`; without it the one on the path is taken.
"""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.web.serve.fakes import saying

from klimb.experience.store import Store
from klimb.workbench.commands.import_rows import import_rows
from klimb.workbench.open_webui import KEY_VARIABLE

COMMAND = os.environ.get("KLIMB_OPEN_WEBUI") or shutil.which("open-webui")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMMAND is None, reason="no open-webui: set KLIMB_OPEN_WEBUI to its command"),
]

DOCUMENT = Path(__file__).parents[3] / "docs" / "open-webui.md"
START_SECONDS = 300


def documented_settings(port: int) -> dict[str, str]:
    """The environment as the document gives it, for a server on this port."""
    lines = [line.strip() for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    pairs = [line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")]
    settings = {name: value.strip("'\"") for name, value in pairs}
    assert "OPENAI_API_CONFIGS" in settings
    return settings | {"OPENAI_API_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}


@contextmanager
def listening(app: Any) -> Generator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@contextmanager
def open_webui(folder: Path, upstream: int) -> Generator["Client"]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir()
    environment = {**os.environ, **documented_settings(upstream), "DATA_DIR": str(folder), "WEBUI_SECRET_KEY": "s"}
    environment.pop("PYTHONPATH", None)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [str(COMMAND), "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        client = Client(f"http://127.0.0.1:{port}")
        client.wait(running, folder / "log")
        yield client
    finally:
        running.terminate()
        running.wait(timeout=30)


class Client:
    """Speaks to Open WebUI as its page does."""

    def __init__(self, address: str) -> None:
        self.address, self.token = address, ""

    def call(self, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data, headers), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def wait(self, running: subprocess.Popen, log: Path) -> None:
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends and running.poll() is None:
            try:
                if self.call("/health") == {"status": True}:
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        pytest.fail(f"Open WebUI did not start: {log.read_text(errors='replace')[-2000:]}")

    def sign_up(self) -> None:
        self.token = self.call("/api/v1/auths/signup", {"name": "A", "email": "a@example.com", "password": "pw123456"})[
            "token"
        ]

    def ask(self, question: str, number: int) -> tuple[str, str, Any]:
        """Ask in a new chat; return the answer's message id, its text, and the chat."""
        user, answer = f"u{number}", f"a{number}"
        asked = {"id": user, "parentId": None, "childrenIds": [answer], "role": "user", "content": question}
        begun = {
            "id": answer,
            "parentId": user,
            "childrenIds": [],
            "role": "assistant",
            "content": "",
            "model": "klimb",
        }
        history = {"messages": {user: asked, answer: begun}, "currentId": answer}
        chat = {"title": "New Chat", "models": ["klimb"], "history": history, "messages": [asked, begun]}
        chat_id = self.call("/api/v1/chats/new", {"chat": chat})["id"]
        request = {
            "stream": True,
            "model": "klimb",
            "messages": [{"role": "user", "content": question}],
            "chat_id": chat_id,
            "id": answer,
            "parent_id": None,
            "user_message": asked,
            "session_id": "s",
        }
        self.call("/api/chat/completions", request)
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            found = self.call(f"/api/v1/chats/{chat_id}")
            message = found["chat"]["history"]["messages"][answer]
            if message.get("done") and message["content"]:
                return answer, message["content"], found
            time.sleep(0.3)
        pytest.fail("the answer did not end")

    def thumb(self, message_id: str, chat: Any, rating: int) -> None:
        data = {"rating": rating, "model_id": "klimb", "reason": "", "comment": "so", "tags": []}
        meta = {"message_id": message_id, "chat_id": chat["id"], "model_id": "klimb"}
        said = {"type": "rating", "data": data, "meta": meta, "snapshot": {"chat": chat}}
        self.call("/api/v1/evaluations/feedback", said)


def test_thumbs_given_in_open_webui_rate_the_samples_that_were_served(
    serve, session_policy, tmp_path, monkeypatch, capsys
):
    served = serve(saying(session_policy, "The moon.", "The moon.", "The sun."))
    with listening(served.app) as port, open_webui(tmp_path / "webui", port) as client:
        client.sign_up()
        first = client.ask("What is it?", 1)
        second = client.ask("What is it?", 2)
        assert [first[1], second[1]] == ["The moon.", "The moon."]
        client.thumb(second[0], second[2], -1)
        monkeypatch.setenv(KEY_VARIABLE, client.call("/api/v1/auths/api_key", {})["api_key"])
        import_rows(client.address, into=tmp_path / "store")
    assert "by their id" in capsys.readouterr().out.replace("\n           ", " ")
    store = Store(tmp_path / "store")
    samples = {sample.metadata["message_id"]: sample for sample in store.samples()}
    assert len(samples) == store.count() == 2
    assert {name: sample.reward for name, sample in samples.items()} == {"a1": None, "a2": 0.0}
    assert samples["a1"].episode != samples["a2"].episode
    (rater,) = store.query("select user from feedback").to_pylist()
    assert rater["user"] == samples["a2"].metadata["user"]
    assert all(sample.log_mu_provenance == "sampler" and not sample.tools for sample in samples.values())
