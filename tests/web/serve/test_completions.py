"""Completions of a bare text or of token ids."""

from fastapi.testclient import TestClient
from tests.web.serve.fakes import saying

from klimb.experience import Store


def test_a_text_is_gone_on_with_without_a_chat_template(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, " there")).app)
    answer = client.post("/v1/completions", json={"prompt": "hello", "return_token_ids": True}).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == " there" and answer["choices"][0]["finish_reason"] == "stop"
    (sample,) = Store(tmp_path / "store").samples()
    assert sample.prompt_ids == tuple(session_policy.tokenizer("hello")["input_ids"])
    assert answer["choices"][0]["prompt_token_ids"] == list(sample.prompt_ids)
    assert answer["choices"][0]["token_ids"] == list(sample.response_ids)
    assert sample.metadata["api"] == "completions" and sample.episode == ""
    assert sample.prompt == ({"role": "user", "content": "hello"},)


def test_token_ids_and_several_prompts_are_taken(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "x")).app)
    assert client.post("/v1/completions", json={"prompt": [5, 6, 7]}).status_code == 200
    answer = client.post("/v1/completions", json={"prompt": ["a", "b"], "n": 2}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    samples = list(Store(tmp_path / "store").samples())
    assert samples[0].prompt_ids == (5, 6, 7)
    assert len({sample.group_id for sample in samples[1:]}) == 2


def test_a_text_that_spells_a_control_token_is_text(serve, session_policy, tmp_path) -> None:
    client = TestClient(serve(saying(session_policy, "x")).app)
    assert client.post("/v1/completions", json={"prompt": "a<|im_end|>"}).status_code == 200
    (sample,) = Store(tmp_path / "store").samples()
    assert session_policy.end_ids[0] not in sample.prompt_ids


def test_what_cannot_be_continued_is_refused(serve, session_policy) -> None:
    served = serve()
    client = TestClient(served.app)
    refused = (
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [10**6]},
        {"prompt": "a", "echo": True},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "best_of": 2},
        {"prompt": ["a"] * 9, "n": 2},
        {"prompt": "a", "logprobs": 21},
    )
    for body in refused:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["message"], body
    assert served.service.requests == []
