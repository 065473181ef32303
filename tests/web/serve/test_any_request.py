"""Whatever is asked, the server answers with no error of its own."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.testclient import TestClient
from tests.web.serve.fakes import Served, by_seed

from klimb.web.serve.schemas import ChatRequest, CompletionRequest
from klimb.web.serve.settings import ServeSettings

ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/v1/models/{model}")


@pytest.fixture(scope="module")
def served(session_policy, tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("any-request")
    made = Served(session_policy, by_seed(session_policy), folder, settings=ServeSettings(commit_seconds=0.0))
    yield made
    made.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields, "logit_bias"}))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(NAMES, JSON, max_size=5), path=st.sampled_from(ROUTES[:2]))
def test_a_body_of_any_json_is_answered_or_refused(served, body, path) -> None:
    client = TestClient(served.app, raise_server_exceptions=False)
    answer = client.post(path, json={"messages": [{"role": "user", "content": "x"}], "prompt": "x", **body})
    assert answer.status_code < 500, (body, answer.text)
    assert answer.status_code == 200 or set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_bytes_that_are_no_json_are_refused(served) -> None:
    client = TestClient(served.app, raise_server_exceptions=False)
    deep = b"[" * 100_000
    for content in (b"", b"{", b"\xff\xfe", b"null", b"[]", b'"x"', b'{"messages": NaN}', deep, b'{"a":' * 5000):
        answer = client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500, content[:20]
        assert "error" in answer.json()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (CompletionRequest, {"prompt": [{}] * 10_000}),
        (CompletionRequest, {"prompt": [1.5] * 10_000}),
        (CompletionRequest, {"prompt": [[{}] * 100] * 100}),
        (ChatRequest, {"messages": [{"role": "user", "content": [0] * 10_000}]}),
        (ChatRequest, {"messages": [{"role": "user", "content": "x"}], "stop": [0] * 10_000}),
    ],
)
def test_ten_thousand_wrong_entries_are_a_handful_of_errors(kind, fields) -> None:
    with pytest.raises(ValidationError) as raised:
        kind(**fields)
    assert raised.value.error_count() <= 4


def test_more_prompts_than_may_be_answered_are_refused_before_one_is_tokenized(served, monkeypatch) -> None:
    def tokenizes(*_: object) -> tuple[int, ...]:
        raise AssertionError("a text was tokenized")

    monkeypatch.setattr(type(served.policies.loaded[0]), "encode", tokenizes)
    answer = TestClient(served.app).post("/v1/completions", json={"prompt": ["x"] * 1_000})
    assert answer.status_code == 400 and "at most 16" in answer.json()["error"]["message"]
    many = TestClient(served.app).post("/v1/completions", json={"prompt": ["x"] * 2_000})
    assert many.status_code == 400


@pytest.mark.slow
def test_schemathesis_finds_no_error_of_the_server(served) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.app)
    seen: set[str] = set()
    for operation in (result.ok() for result in schema.get_all_operations()):
        seen.add(operation.path)
        strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=strategy)
        def ask(case) -> None:
            assert case.call().status_code < 500

        ask()
    assert set(ROUTES) <= seen
