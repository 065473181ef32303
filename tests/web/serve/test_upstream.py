"""In front of another server: what it says is passed on, and recorded with honest provenance."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from tests.web.serve.fakes import saying

from klimb.experience import Store
from klimb.web.serve.app import make_serve_app
from klimb.web.serve.meters import Meters
from klimb.web.serve.recording import Recorder
from klimb.web.serve.settings import ServeSettings
from klimb.web.serve.upstream import EXTRAS, Upstream

ASK: dict[str, Any] = {"model": "their-model", "messages": [{"role": "user", "content": "hi"}]}


class FakeVllm:
    """Says "ok", with ids and log-probabilities as vLLM gives them; a strict one knows OpenAI's parameters alone."""

    def __init__(self, *, is_strict: bool = False, mask: bool = False) -> None:
        self.is_strict, self.mask = is_strict, mask
        self.received: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.chat)
        self.app.get("/v1/models")(self.models)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "their-model", "object": "model"}]}

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.received.append(body)
        if self.is_strict and any(name in body for name in EXTRAS):
            return Response(json.dumps({"error": {"message": "unknown parameter"}}), status_code=400)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        beside: dict[str, Any] = {
            "logprobs": {"content": [{"token": "ok", "logprob": -0.5}, {"token": "", "logprob": -0.1}]}
        }
        if not self.is_strict:
            beside["token_ids"] = [7, 2]
        if self.mask:
            beside["sampling_mask"] = [[7, 8], [2]]
        frame = {"id": "chatcmpl-theirs", "object": "chat.completion", "model": "their-model"}
        if not self.is_strict:
            frame["prompt_token_ids"] = [1, 4, 5]
        if not body.get("stream"):
            message = {"role": "assistant", "content": "ok"}
            return Response(json.dumps({**frame, "choices": [{**choice, "message": message, **beside}]}))
        chunks = [
            {**frame, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "ok"}, **beside}]},
            {**frame, "choices": [{**choice, "delta": {}}]},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


class Front:
    def __init__(self, app: Any, folder: Any, **named: Any) -> None:
        self.folder, self.recorder = folder, Recorder(folder, commit_seconds=0.001)
        settings, meters = ServeSettings(), Meters()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
        self.upstream = Upstream("http://their/v1", self.recorder, settings, meters, client=client, **named)
        self.client = TestClient(make_serve_app(self.upstream, self.recorder, settings, meters=meters))

    def samples(self):
        return list(Store(self.folder).samples())

    def close(self) -> None:
        self.recorder.close()


@pytest.fixture
def front(tmp_path):
    made: list[Front] = []

    def start(app: Any, **named: Any) -> Front:
        made.append(Front(app, tmp_path / "front", **named))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_an_answer_is_passed_on_without_what_was_not_asked_for_and_recorded_with_its_ids(front) -> None:
    theirs = FakeVllm()
    here = front(theirs.app)
    answer = here.client.post("/v1/chat/completions", json=ASK).json()
    assert answer["choices"][0]["message"]["content"] == "ok"
    assert "token_ids" not in answer["choices"][0] and answer["choices"][0]["logprobs"] is None
    assert "prompt_token_ids" not in answer
    (sample,) = here.samples()
    assert (sample.sample_id, sample.model) == ("chatcmpl-theirs", "their-model")
    assert (sample.prompt_ids, sample.response_ids, sample.log_mu) == ((1, 4, 5), (7, 2), (-0.5, -0.1))
    assert sample.log_mu_provenance == "sampler"
    assert sample.sampling is not None and sample.sampling.temperature == 1
    sent = theirs.received[0]
    assert (sent["temperature"], sent["top_p"], sent["logprobs"], sent["return_token_ids"]) == (1, 1, True, True)


def test_what_was_asked_for_is_passed_on(front) -> None:
    here = front(FakeVllm().app)
    answer = here.client.post("/v1/chat/completions", json={**ASK, "logprobs": True, "return_token_ids": True}).json()
    assert answer["choices"][0]["token_ids"] == [7, 2] and answer["prompt_token_ids"] == [1, 4, 5]
    assert answer["choices"][0]["logprobs"]["content"][0]["logprob"] == -0.5


def test_a_stream_is_passed_on_and_recorded_before_its_end(front) -> None:
    here = front(FakeVllm().app)
    text = here.client.post("/v1/chat/completions", json={**ASK, "stream": True}).text
    assert text.rstrip().endswith("data: [DONE]") and "token_ids" not in text
    (sample,) = here.samples()
    assert (sample.response, sample.response_ids, sample.log_mu) == ("ok", (7, 2), (-0.5, -0.1))
    assert sample.finish_reason == "stop" and "cancelled" not in sample.metadata


@pytest.mark.parametrize(
    ("change", "log_probs", "provenance"),
    [
        ({}, "raw", "sampler"),
        ({"temperature": 0.7}, "raw", "estimated"),
        ({"top_p": 0.9}, "raw", "estimated"),
        ({"frequency_penalty": 0.5}, "raw", "estimated"),
        ({"response_format": {"type": "json_object"}}, "raw", "estimated"),
        ({"guided_regex": "a+"}, "raw", "estimated"),
        ({"temperature": 0.7, "top_p": 0.9}, "processed", "sampler"),
    ],
)
def test_log_probs_are_the_samplers_only_where_they_are_of_what_was_drawn_from(
    front, change, log_probs, provenance
) -> None:
    here = front(FakeVllm().app, log_probs=log_probs)
    assert here.client.post("/v1/chat/completions", json={**ASK, **change}).status_code == 200
    assert here.samples()[0].log_mu_provenance == provenance


def test_a_server_that_knows_no_extras_is_asked_without_them_and_no_ids_are_invented(front) -> None:
    theirs = FakeVllm(is_strict=True)
    here = front(theirs.app)
    for _ in range(2):
        assert here.client.post("/v1/chat/completions", json=ASK).status_code == 200
    assert len(theirs.received) == 3
    sample = here.samples()[0]
    assert (sample.response_ids, sample.log_mu, sample.log_mu_provenance) == ((), None, "absent")


def test_a_sampling_mask_is_the_support(front) -> None:
    here = front(FakeVllm(mask=True).app, log_probs="processed")
    here.client.post("/v1/chat/completions", json={**ASK, "top_k": 2})
    assert here.samples()[0].support == ((7, 8), (2,))


def test_a_conversation_is_known_by_its_history(front) -> None:
    here = front(FakeVllm().app)
    here.client.post("/v1/chat/completions", json=ASK)
    messages = [*ASK["messages"], {"role": "assistant", "content": "ok"}, {"role": "user", "content": "and?"}]
    here.client.post("/v1/chat/completions", json={**ASK, "messages": messages})
    assert len({sample.episode for sample in here.samples()}) == 1


def test_headers_of_a_program_in_front_are_recorded_and_not_passed_on_in_the_body(front) -> None:
    server = FakeVllm()
    here = front(server.app)
    headers = {"X-Klimb-Conversation": "chat-1", "X-Klimb-Message": "m1", "X-Klimb-User": "ann"}
    here.client.post("/v1/chat/completions", json=ASK, headers=headers)
    (sample,) = here.samples()
    assert (sample.episode, sample.metadata["message_id"]) == ("chat-1", "m1")
    assert sample.metadata["user"] not in ("", "ann")
    assert "metadata" not in server.received[0] and "user" not in server.received[0]


def test_a_server_that_is_not_there_is_a_502_and_told_by_health(tmp_path) -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    recorder, settings, meters = Recorder(tmp_path), ServeSettings(), Meters()
    client = httpx.AsyncClient(transport=httpx.MockTransport(gone))
    upstream = Upstream("http://their/v1", recorder, settings, meters, client=client)
    here = TestClient(make_serve_app(upstream, recorder, settings, meters=meters))
    answer = here.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_failed"
    assert here.get("/health").json()["status"] == "degraded"
    recorder.close()


@pytest.mark.parametrize("is_stream", [False, True])
def test_in_front_of_klimbs_own_server_both_stores_hold_the_same_answer(
    front, serve, session_policy, tmp_path, is_stream
) -> None:
    served = serve(saying(session_policy, "good day"))
    here = front(served.app)
    answer = here.client.post("/v1/chat/completions", json={**ASK, "model": "klimb", "stream": is_stream})
    assert answer.status_code == 200
    (mine,), (theirs,) = here.samples(), list(Store(tmp_path / "store").samples())
    for name in ("sample_id", "prompt", "prompt_ids", "response", "response_ids", "finish_reason", "model"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert mine.log_mu == tuple(-(place + 1) / 4 for place in range(9))
    assert mine.log_mu_provenance == "sampler"
