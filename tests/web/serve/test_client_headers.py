"""Programs that can only add headers say whose a request is, of which conversation, and what they call its answer."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.web.serve.fakes import saying

from klimb.experience import Sample, Store
from klimb.experience.importing import import_rows

ASK = {"messages": [{"role": "user", "content": "hi"}]}
HEADERS = {"X-Klimb-Conversation": "chat-1", "X-Klimb-Message": "m1", "X-Klimb-User": "ann"}


def stored(folder: Path) -> list[Sample]:
    return sorted(Store(folder / "store").samples(), key=lambda sample: sample.created_at)


def test_headers_name_conversation_message_and_user_and_the_user_is_hashed(serve, session_policy, tmp_path):
    client = TestClient(serve(saying(session_policy, "yes")).app)
    client.post("/v1/chat/completions", json=ASK, headers=HEADERS)
    client.post("/v1/chat/completions", json={**ASK, "user": "ann"})
    first, second = stored(tmp_path)
    assert first.episode == "chat-1"
    assert first.metadata["message_id"] == "m1"
    assert first.metadata["user"] == second.metadata["user"] != "ann"
    assert "message_id" not in second.metadata


def test_what_the_body_says_goes_before_what_the_headers_say(serve, session_policy, tmp_path):
    client = TestClient(serve(saying(session_policy, "yes")).app)
    said = {"user": "bob", "metadata": {"conversation": "mine", "message_id": "m2"}}
    client.post("/v1/chat/completions", json={**ASK, **said}, headers=HEADERS)
    client.post("/v1/chat/completions", json={**ASK, "safety_identifier": "bob"}, headers=HEADERS)
    first, second = stored(tmp_path)
    assert (first.episode, first.metadata["message_id"]) == ("mine", "m2")
    assert first.metadata["user"] == second.metadata["user"]


@pytest.mark.parametrize("headers", [{"X-Klimb-Message": "m" * 201}, {"X-Klimb-Conversation": "a\tb"}])
def test_a_header_that_is_no_short_text_is_refused_and_nothing_is_drawn(serve, session_policy, tmp_path, headers):
    client = TestClient(serve(saying(session_policy, "yes")).app)
    got = client.post("/v1/chat/completions", json=ASK, headers=headers)
    assert got.status_code == 400 and "at most 200" in got.json()["error"]["message"]
    assert stored(tmp_path) == []


def test_a_thumb_of_the_program_in_front_reaches_the_answer_that_was_served(serve, session_policy, tmp_path):
    client = TestClient(serve(saying(session_policy, "yes", "yes")).app)
    client.post("/v1/chat/completions", json=ASK, headers=HEADERS)
    client.post("/v1/chat/completions", json=ASK, headers={**HEADERS, "X-Klimb-Message": "m2"})
    messages = {
        "m0": {"id": "m0", "parentId": None, "role": "user", "content": "hi"},
        "m2": {"id": "m2", "parentId": "m0", "role": "assistant", "content": "yes", "done": True},
    }
    thumb = {
        "id": "f1",
        "user_id": "ann",
        "type": "rating",
        "data": {"rating": 1, "model_id": "klimb"},
        "meta": {"message_id": "m2"},
        "snapshot": {"chat": {"chat": {"history": {"messages": messages}}}},
        "updated_at": 1_790_000_000,
    }
    store = Store(tmp_path / "store")
    import_rows(store, [thumb], kind="open-webui")
    first, second = stored(tmp_path)
    assert (first.reward, second.reward) == (None, 1.0)
    (rated,) = store.query("select user from feedback").to_pylist()
    assert rated["user"] == second.metadata["user"]
