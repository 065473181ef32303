"""Open WebUI's feedback by its API: with a key of the environment, from the address that was named and no other."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from klimb.errors import ConfigError
from klimb.experience.store import Store
from klimb.workbench.commands.import_rows import import_rows
from klimb.workbench.open_webui import EXPORT, KEY_VARIABLE, fetch_feedback
from klimb.workbench.options import ImportOptions

KEY = {KEY_VARIABLE: "sk-1"}
ROW = {
    "id": "f1",
    "user_id": "u1",
    "version": 0,
    "type": "rating",
    "data": {"rating": 1, "model_id": "klimb"},
    "meta": {"message_id": "m1", "chat_id": "c1"},
    "snapshot": {
        "chat": {
            "id": "c1",
            "chat": {
                "history": {
                    "messages": {
                        "m0": {"id": "m0", "parentId": None, "role": "user", "content": "why?"},
                        "m1": {"id": "m1", "parentId": "m0", "role": "assistant", "content": "so", "done": True},
                    }
                }
            },
        }
    },
    "created_at": 1_790_000_000,
    "updated_at": 1_790_000_000,
}


@dataclass
class Served:
    """What a server answers, and what it was asked."""

    address: str = ""
    status: int = 200
    content: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Served]:
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(served.content)

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    listening.shutdown()
    listening.server_close()


def test_the_export_is_asked_for_with_the_key(server):
    server.content = json.dumps([ROW]).encode()
    assert fetch_feedback(f"{server.address}/", KEY) == [ROW]
    assert server.asked == [(EXPORT, "Bearer sk-1")]


def test_a_redirect_gets_no_key(server):
    server.status, server.headers = 302, {"Location": f"{server.address}/elsewhere"}
    with pytest.raises(ValueError, match="without a redirect"):
        fetch_feedback(server.address, KEY)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"<html>", "no JSON"), (b'{"detail": 1}', "something else"), (b"[1]", "something else"), (b"[]", "no feedback")],
)
def test_what_is_no_export_is_refused(server, content: bytes, said: str):
    server.content = content
    with pytest.raises(ValueError, match=said):
        fetch_feedback(server.address, KEY)


def test_a_refused_key_is_told_with_the_servers_words(server):
    server.status, server.content = 401, b'{"detail": "no admin"}'
    with pytest.raises(ValueError, match=r"answered 401.*no admin.*administrator"):
        fetch_feedback(server.address, KEY)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="does not answer"):
        fetch_feedback("http://127.0.0.1:9", KEY)


def test_without_a_key_nothing_is_asked(server):
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        fetch_feedback(server.address, {})
    assert server.asked == []


@pytest.mark.parametrize("address", ["http://", "http://name:word@127.0.0.1", "http://127.0.0.1/?a=b"])
def test_an_address_with_more_in_it_is_refused(address: str):
    with pytest.raises(ConfigError, match="no address"):
        fetch_feedback(address, KEY)


def test_klimb_import_takes_the_address_and_keeps_neither_key_nor_users(server, tmp_path, monkeypatch, capsys):
    server.content = json.dumps([ROW]).encode()
    monkeypatch.setenv(KEY_VARIABLE, KEY[KEY_VARIABLE])
    import_rows(server.address, into=tmp_path / "store")
    assert "1 added" in capsys.readouterr().out
    assert Store(tmp_path / "store").sample("m1").reward == 1.0
    written = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"sk-1" not in written and b'"u1"' not in written


def test_an_address_is_of_an_open_webui_alone(tmp_path):
    with pytest.raises(ConfigError, match="--as says openai"):
        import_rows("http://127.0.0.1:9", into=tmp_path / "store", options=ImportOptions(kind="openai"))
