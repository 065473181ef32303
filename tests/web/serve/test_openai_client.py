"""OpenAI's own client works unchanged against the server."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from tests.web.serve.fakes import saying

from klimb.experience import Store

openai = pytest.importorskip("openai")


@contextmanager
def running(app) -> Iterator[str]:
    """Serve the application on a free port, and give its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)


ASK = [{"role": "user", "content": "hi"}]


def test_answers_streams_choices_log_probs_and_errors_are_read_by_it(serve, session_policy, tmp_path) -> None:
    with running(serve(saying(session_policy, "good day")).app) as address:
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        plain = client.chat.completions.create(model="klimb", messages=ASK, n=2, logprobs=True, top_logprobs=1, seed=3)
        assert [choice.message.content for choice in plain.choices] == ["good day", "good day"]
        assert plain.choices[0].logprobs.content[0].token == "g"
        assert plain.usage.completion_tokens == 18
        stream = client.chat.completions.create(
            model="klimb", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "good day"
        assert chunks[-1].usage.completion_tokens == 9
        text = client.completions.create(model="klimb", prompt="hi", max_tokens=4, logprobs=1)
        assert text.choices[0].text == "good" and text.choices[0].finish_reason == "length"
        assert text.choices[0].logprobs.tokens == list("good")
        assert text.choices[0].logprobs.text_offset == [0, 1, 2, 3]
        assert [model.id for model in client.models.list()] == ["klimb", "policy-0001"]
        with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
            client.chat.completions.create(model="klimb", messages=ASK, frequency_penalty=1.5)
        with pytest.raises(openai.NotFoundError, match="no model"):
            client.chat.completions.create(model="gpt", messages=ASK)
    samples = list(Store(tmp_path / "store").samples())
    assert len(samples) == 4
    assert plain.id == next(sample.group_id for sample in samples if sample.sample_id.endswith("-1"))


def test_a_client_that_goes_away_ends_its_draw_and_what_was_drawn_is_kept(serve, session_policy, tmp_path) -> None:
    served = serve(saying(session_policy, "x" * 200), engine={"seconds": 0.02})
    with running(served.app) as address:
        client = openai.OpenAI(base_url=address, api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="klimb", messages=ASK, stream=True)
        for number, _ in enumerate(stream):
            if number == 5:
                break
        stream.close()
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3).chat.completions.create(model="klimb", messages=ASK)
        until = time.monotonic() + 10
        while not all(t.cancelled.is_set() for t in served.service.tickets) and time.monotonic() < until:
            time.sleep(0.02)
        assert [ticket.cancelled.is_set() for ticket in served.service.tickets] == [True, True]
        until = time.monotonic() + 10
        while served.recorder.num_written < 2 and time.monotonic() < until:
            time.sleep(0.02)
    samples = list(Store(tmp_path / "store").samples())
    assert [sample.metadata.get("cancelled") for sample in samples] == ["yes", "yes"]
    assert {sample.finish_reason for sample in samples} == {"unknown"}
    assert all(0 < len(sample.response_ids) < 200 for sample in samples)
    assert all(len(sample.log_mu or ()) == len(sample.response_ids) for sample in samples)
