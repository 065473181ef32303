"""Chat completions: what is drawn is answered in OpenAI's words, and is in the store as it was drawn."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.web.serve.fakes import saying

from klimb.experience import Sample, Store

ASK = {"messages": [{"role": "user", "content": "hi"}]}


def stored(folder: Path) -> list[Sample]:
    return list(Store(folder / "store").samples())


def chunks_of(text: str) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_is_the_drawn_text_and_a_sample_with_all_that_was_drawn(serve, session_policy, tmp_path) -> None:
    served = serve(saying(session_policy, "good day"))
    answer = TestClient(served.app).post("/v1/chat/completions", json={**ASK, "max_tokens": 20, "seed": 7}).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "good day", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["model"] == "policy-0001"
    prompt_ids = session_policy.render([{"role": "user", "content": "hi"}])
    assert answer["usage"] == {
        "prompt_tokens": len(prompt_ids),
        "completion_tokens": 9,
        "total_tokens": len(prompt_ids) + 9,
    }
    (sample,) = stored(tmp_path)
    assert sample.sample_id == sample.group_id == answer["id"]
    assert sample.prompt == ({"role": "user", "content": "hi"},)
    assert sample.prompt_ids == prompt_ids
    assert sample.response == "good day"
    assert sample.response_ids[-1] == session_policy.end_ids[0]
    assert sample.log_mu == tuple(-(place + 1) / 8 for place in range(9))
    assert sample.log_mu_provenance == "sampler"
    assert (sample.model, sample.policy_version, sample.source) == ("policy-0001", 3, "rollout")
    assert sample.tokenizer == session_policy.fingerprint
    assert sample.sampling is not None and sample.sampling.max_new_tokens == 20
    assert sample.sampling.temperature == session_policy.temperature
    assert sample.metadata == {"served_by": "klimb"}
    assert sample.support is None
    assert served.service.requests[0].seed == 7


def test_a_stream_spells_the_same_answer_and_ends_with_done(serve, session_policy, tmp_path) -> None:
    served = serve(saying(session_policy, "good day"))
    with TestClient(served.app) as client:
        text = client.post(
            "/v1/chat/completions", json={**ASK, "stream": True, "stream_options": {"include_usage": True}}
        ).text
    chunks = chunks_of(text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == "good day"
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 9
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [sample.response for sample in stored(tmp_path)] == ["good day"]


def test_without_include_usage_no_chunk_speaks_of_it(serve, session_policy) -> None:
    served = serve(saying(session_policy, "yes"))
    chunks = chunks_of(TestClient(served.app).post("/v1/chat/completions", json={**ASK, "stream": True}).text)
    assert all("usage" not in chunk for chunk in chunks)


def test_several_choices_are_samples_of_one_group_each_with_a_seed_of_its_own(serve, tmp_path) -> None:
    served = serve()
    answer = TestClient(served.app).post("/v1/chat/completions", json={**ASK, "n": 3, "seed": 1}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    samples = stored(tmp_path)
    assert sorted(sample.sample_id for sample in samples) == [f"{answer['id']}-{number}" for number in range(3)]
    assert {sample.group_id for sample in samples} == {answer["id"]}
    assert len({request.seed for request in served.service.requests}) == 3


def test_the_same_seed_gives_the_same_answers_and_more_choices_change_none(serve) -> None:
    client = TestClient(serve().app)
    said = [
        [each["message"]["content"] for each in client.post("/v1/chat/completions", json=ask).json()["choices"]]
        for ask in ({**ASK, "n": 2, "seed": 5}, {**ASK, "n": 3, "seed": 5}, {**ASK, "n": 2, "seed": 6})
    ]
    assert said[0] == said[1][:2]
    assert said[0] != said[2]


def test_a_stop_string_is_no_part_of_the_text_but_of_what_was_drawn(serve, session_policy, tmp_path) -> None:
    served = serve(saying(session_policy, "one STOP"))
    client = TestClient(served.app)
    plain = client.post("/v1/chat/completions", json={**ASK, "stop": "STOP"}).json()
    assert plain["choices"][0]["message"]["content"] == "one "
    chunks = chunks_of(client.post("/v1/chat/completions", json={**ASK, "stop": ["STOP"], "stream": True}).text)
    said = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == "one " and not any("S" in each for each in said)
    assert {sample.response for sample in stored(tmp_path)} == {"one STOP"}


def test_log_probs_are_those_of_the_policy_with_alternatives_and_bytes(serve, session_policy) -> None:
    served = serve(saying(session_policy, "ab"))
    ask = {**ASK, "logprobs": True, "top_logprobs": 2}
    content = TestClient(served.app).post("/v1/chat/completions", json=ask).json()["choices"][0]["logprobs"]["content"]
    assert [(each["token"], each["bytes"], each["logprob"]) for each in content[:2]] == [
        ("a", [97], -0.25),
        ("b", [98], -0.5),
    ]
    assert len(content) == 3 and content[2]["token"] == "<|im_end|>"
    assert [len(each["top_logprobs"]) for each in content] == [2, 2, 2]


def test_token_ids_come_as_vllm_gives_them(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "ab")).app)
    ask = {**ASK, "return_token_ids": True}
    answer = client.post("/v1/chat/completions", json=ask).json()
    chunks = chunks_of(client.post("/v1/chat/completions", json={**ask, "stream": True}).text)
    sample = stored(tmp_path)[0]
    assert tuple(answer["prompt_token_ids"]) == sample.prompt_ids
    assert tuple(answer["choices"][0]["token_ids"]) == sample.response_ids
    assert [chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk] == [list(sample.prompt_ids)]
    streamed = [token for chunk in chunks for choice in chunk["choices"] for token in choice.get("token_ids", ())]
    assert tuple(streamed) == sample.response_ids


def test_what_was_cut_is_recorded_with_what_could_be_drawn(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "ab")).app)
    ask = {**ASK, "top_p": 0.9, "top_k": 3, "min_p": 0.1, "return_sampling_mask": True}
    choice = client.post("/v1/chat/completions", json=ask).json()["choices"][0]
    (sample,) = stored(tmp_path)
    assert sample.support is not None and len(sample.support) == 3
    assert [tuple(each) for each in choice["sampling_mask"]] == list(sample.support)
    assert sample.sampling is not None
    assert (sample.sampling.top_p, sample.sampling.top_k, sample.sampling.min_p) == (0.9, 3, 0.1)


def test_users_are_hashed_and_no_conversation_goes_on_with_anothers(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "yes", "no", "perhaps")).app)
    client.post("/v1/chat/completions", json={**ASK, "user": "ann@example.org"})
    follow = {"messages": [*ASK["messages"], {"role": "assistant", "content": "yes"}, {"role": "user", "content": "?"}]}
    client.post("/v1/chat/completions", json={**follow, "user": "bob"})
    client.post("/v1/chat/completions", json={**follow, "user": "ann@example.org"})
    first, other, same = sorted(stored(tmp_path), key=lambda sample: sample.created_at)
    assert "ann" not in str(first) and len(first.metadata["user"]) == 16
    assert other.episode != first.episode
    assert same.episode == first.episode and same.metadata["user"] == first.metadata["user"]


def test_a_conversation_goes_on_with_the_very_ids_that_were_drawn(serve, session_policy, tmp_path) -> None:
    served = serve(saying(session_policy, "yes", "no"))
    client = TestClient(served.app)
    client.post("/v1/chat/completions", json=ASK)
    messages = [*ASK["messages"], {"role": "assistant", "content": " yes\n"}, {"role": "user", "content": "really?"}]
    client.post("/v1/chat/completions", json={"messages": messages})
    first, second = sorted(stored(tmp_path), key=lambda sample: sample.created_at)
    assert first.episode == second.episode != ""
    assert second.prompt_ids[: len(first.prompt_ids) + len(first.response_ids)] == first.prompt_ids + first.response_ids
    clean = [*ASK["messages"], {"role": "assistant", "content": "yes"}, {"role": "user", "content": "really?"}]
    assert second.prompt_ids == session_policy.render(clean)


def test_a_history_that_was_not_drawn_here_begins_a_conversation_of_its_own(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "yes", "no")).app)
    client.post("/v1/chat/completions", json=ASK)
    messages = [
        *ASK["messages"],
        {"role": "assistant", "content": "never said"},
        {"role": "user", "content": "really?"},
    ]
    client.post("/v1/chat/completions", json={"messages": messages})
    first, second = stored(tmp_path)
    assert first.episode != second.episode
    assert session_policy.render(messages) in (first.prompt_ids, second.prompt_ids)


def test_a_conversation_can_be_named(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "yes")).app)
    for question in ("a", "b"):
        ask = {"messages": [{"role": "user", "content": question}], "metadata": {"conversation": "mine"}}
        assert client.post("/v1/chat/completions", json=ask).status_code == 200
    assert {sample.episode for sample in stored(tmp_path)} == {"mine"}


def test_an_answer_that_was_cut_can_be_gone_on_from(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "a long answer", "no")).app)
    client.post("/v1/chat/completions", json={**ASK, "max_tokens": 6})
    messages = [*ASK["messages"], {"role": "assistant", "content": "a long"}, {"role": "user", "content": "on"}]
    client.post("/v1/chat/completions", json={"messages": messages})
    first, second = sorted(stored(tmp_path), key=lambda sample: sample.created_at)
    assert first.finish_reason == "length"
    assert second.prompt_ids == session_policy.render(messages)
    assert second.episode == first.episode


REFUSED = (
    ({"frequency_penalty": 1.0}, "frequency_penalty"),
    ({"invented": 1}, "unknown parameter 'invented'"),
    ({"response_format": {"type": "json_object"}}, "cannot be promised"),
    ({"tool_choice": "required"}, "'auto' or 'none'"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "'auto' or 'none'"),
    ({"n": 17}, "at most 16"),
    ({"max_tokens": 5000}, "at most 4096"),
    ({"max_tokens": 250}, "256 positions"),
    ({"top_logprobs": 3}, "logprobs = true"),
    ({"logprobs": True, "top_logprobs": 21}, "at most 20"),
    ({"temperature": 1e-6}, "at least 0.01"),
    ({"temperature": -1}, "temperature"),
    ({"min_tokens": 10, "max_tokens": 5}, "min_new_tokens"),
    ({"stop": [""]}, "stop"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, "role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text is read"),
    ({"messages": [{"role": "user"}]}, "no content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, ""),
    ({"metadata": {"a": "\ud800"}}, "no Unicode"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "shows no format of tool calls"),
)
"""What is added to a request, and what its refusal says."""


def test_what_cannot_be_done_is_a_400_in_openais_form_and_draws_nothing(serve, tmp_path) -> None:
    served = serve()
    client = TestClient(served.app)
    for change, says in REFUSED:
        content = json.dumps({**ASK, **change})
        answer = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, change
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error" and says in error["message"], change
    assert served.service.requests == [] and stored(tmp_path) == []


HARMLESS = (
    {"frequency_penalty": 0},
    {"presence_penalty": 0.0, "logit_bias": {}, "parallel_tool_calls": True},
    {"store": True, "service_tier": "auto", "prompt_cache_key": "x"},
    {"response_format": {"type": "text"}, "tool_choice": "none"},
    {"modalities": ["text"], "reasoning_effort": None},
    {"max_completion_tokens": 5, "top_k": -1},
    {"messages": [{"role": "developer", "content": "be short"}, {"role": "user", "content": "?", "name": "ann"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
)


def test_harmless_parameters_are_let_pass(serve) -> None:
    client = TestClient(serve().app)
    for change in HARMLESS:
        assert client.post("/v1/chat/completions", json={**ASK, **change}).status_code == 200, change


def test_models_are_the_deployments_name_and_its_policies(serve) -> None:
    client = TestClient(serve(name="assistant").app)
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["assistant", "policy-0001"]
    assert client.get("/v1/models/policy-0001").json()["policy_version"] == 3
    assert client.get("/v1/models/other").status_code == 404
    for model in ("assistant", "policy-0001"):
        assert client.post("/v1/chat/completions", json={**ASK, "model": model}).status_code == 200
    answer = client.post("/v1/chat/completions", json={**ASK, "model": "gpt-4"})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_a_busy_service_says_when_to_come_again(serve) -> None:
    served = serve()
    served.service.is_busy = True
    answer = TestClient(served.app).post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    served.service.is_busy, served.service.is_closed = False, True
    assert TestClient(served.app).post("/v1/chat/completions", json=ASK).status_code == 503


def test_a_draw_that_fails_is_a_500_that_tells_no_secrets(serve, tmp_path) -> None:
    served = serve()
    served.service.failure = RuntimeError("secret path")
    answer = TestClient(served.app).post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.json()["error"]["code"] == "draw_failed"


@pytest.mark.parametrize("rule", ["refuse", "answer"])
def test_an_answer_that_cannot_be_recorded_is_refused_or_told_by_health(serve, monkeypatch, rule) -> None:
    served = serve(on_store_error=rule)

    def full(path: Path, samples: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("klimb.web.serve.recording.write_samples", full)
    client = TestClient(served.app)
    answer = client.post("/v1/chat/completions", json=ASK)
    health = client.get("/health")
    assert "No space left" in health.json()["errors"][0]
    assert str(served.recorder.folder) not in answer.text + health.text
    if rule == "refuse":
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "not_recorded"
        assert health.status_code == 503
        stream = client.post("/v1/chat/completions", json={**ASK, "stream": True}).text
        assert "[DONE]" not in stream and "not_recorded" in stream
    else:
        assert answer.status_code == 200 and health.status_code == 200
    assert "klimb_store_is_writable 0" in client.get("/metrics").text


def test_half_a_character_in_the_arguments_of_a_call_is_text_and_the_answer_is_recorded(serve) -> None:
    served = serve()
    client = TestClient(served.app)
    for arguments in ('{"a": "\\ud800"}', '{"a": NaN}'):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        said = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "x"}]
        answer = client.post("/v1/chat/completions", json={**ASK, "messages": [*ASK["messages"], *said]})
        assert answer.status_code == 200, answer.text
        assert served.recorder.find(answer.json()["id"]) is not None
    assert client.get("/health").json()["status"] == "ok"


def test_a_sample_that_cannot_be_written_says_nothing_of_the_store(serve, monkeypatch) -> None:
    def half(path: Path, samples: object) -> None:
        raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    client = TestClient(serve().app)
    monkeypatch.setattr("klimb.web.serve.recording.write_samples", half)
    answer = client.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 503 and "store" not in answer.json()["error"]["message"]
    assert client.get("/health").json()["status"] == "ok"


def test_what_a_model_says_is_json_and_nothing_else(serve, session_policy) -> None:
    answer = TestClient(serve(saying(session_policy, "<script>alert(1)</script>")).app).post(
        "/v1/chat/completions", json=ASK
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"]["content"] == "<script>alert(1)</script>"


def test_no_text_is_logged_unless_asked_for(serve, session_policy, caplog) -> None:
    caplog.set_level("DEBUG", logger="klimb")
    ask = {"messages": [{"role": "user", "content": "my secret"}]}
    TestClient(serve(saying(session_policy, "your answer")).app).post("/v1/chat/completions", json=ask)
    assert "secret" not in caplog.text and "answer" not in caplog.text.replace("answers", "")
    TestClient(serve(saying(session_policy, "your answer"), log_requests=True).app).post(
        "/v1/chat/completions", json=ask
    )
    assert "my secret" in caplog.text and "your answer" in caplog.text


def test_metrics_count_requests_tokens_and_samples(serve, session_policy) -> None:
    client = TestClient(serve(saying(session_policy, "ab")).app)
    client.post("/v1/chat/completions", json=ASK)
    client.post("/v1/chat/completions", json={})
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'klimb_requests_total{route="/v1/chat/completions",status="200"} 1' in text
    assert 'klimb_requests_total{route="/v1/chat/completions",status="400"} 1' in text
    assert 'klimb_requests_total{route="other",status="404"} 1' in text
    assert 'klimb_drawn_tokens_total{policy="policy-0001"} 3' in text
    assert "klimb_samples_written_total 1" in text
    assert 'klimb_policy_version{policy="policy-0001"} 3' in text
    assert "klimb_first_token_seconds_count 1" in text
