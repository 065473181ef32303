"""Tools: offered to the policy in its own format, read back as OpenAI's calls, and gone on from without new ids."""

import json

import pytest
from fastapi.testclient import TestClient
from tests.web.serve.fakes import Served, saying

from klimb.experience import Store
from klimb.policies import load_policy
from klimb.web.serve.settings import ServeSettings

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }} <tool_call>{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
ASK = {"messages": [{"role": "user", "content": "1+1?"}], "tools": TOOLS}


@pytest.fixture(scope="module")
def tool_policy(tiny_model_path):
    policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    policy.tokenizer.chat_template = TEMPLATE
    return policy


@pytest.fixture
def start(tool_policy, tmp_path):
    made: list[Served] = []

    def begin(*texts: str) -> Served:
        script = saying(tool_policy, *texts)
        folder = tmp_path / "store"
        made.append(Served(tool_policy, script, folder, settings=ServeSettings(), max_positions=4096))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_a_call_is_answered_as_openai_has_it_and_the_next_turn_goes_on_with_its_ids(start, tmp_path) -> None:
    client = TestClient(start(CALL, "2").app)
    choice = client.post("/v1/chat/completions", json=ASK).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function" and call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    result = {"role": "tool", "tool_call_id": call["id"], "content": "2"}
    messages = [*ASK["messages"], choice["message"], result]
    last = client.post("/v1/chat/completions", json={**ASK, "messages": messages}).json()["choices"][0]
    assert (last["message"]["content"], last["finish_reason"]) == ("2", "stop")
    first, second = sorted(Store(tmp_path / "store").samples(), key=lambda sample: sample.created_at)
    assert first.turns[0].calls[0].name == "add" and json.loads(first.tools) == TOOLS
    assert second.episode == first.episode
    seen = first.prompt_ids + first.response_ids
    assert second.prompt_ids[: len(seen)] == seen
    assert second.prompt[-1] == {"role": "tool", "content": "2", "name": "add"}


def test_a_stream_gives_the_same_call(start) -> None:
    text = TestClient(start(CALL).app).post("/v1/chat/completions", json={**ASK, "stream": True}).text
    chunks = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line and "[DONE]" not in line]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    (call,) = next(delta["tool_calls"] for delta in deltas if "tool_calls" in delta)
    assert call["index"] == 0 and json.loads(call["function"]["arguments"]) == {"a": 1}
    assert not any(delta.get("content") for delta in deltas)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tools_that_are_not_to_be_called_are_not_shown(start, tmp_path) -> None:
    TestClient(start("two").app).post("/v1/chat/completions", json={**ASK, "tool_choice": "none"})
    (sample,) = Store(tmp_path / "store").samples()
    assert sample.tools == "" and sample.response == "two"


def test_a_call_that_cannot_be_read_is_text_and_recorded_as_such(start, tmp_path) -> None:
    broken = "<tool_call>\n{broken\n</tool_call>"
    choice = TestClient(start(broken).app).post("/v1/chat/completions", json=ASK).json()["choices"][0]
    assert choice["finish_reason"] == "stop" and choice["message"]["content"] == broken
    (sample,) = Store(tmp_path / "store").samples()
    assert "could not be read" in sample.turns[0].error


def test_results_stand_in_the_order_of_their_calls(start, tmp_path) -> None:
    calls = [
        {"id": each, "type": "function", "function": {"name": each, "arguments": "{}"}} for each in ("first", "second")
    ]
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "second", "content": "2"},
        {"role": "tool", "tool_call_id": "first", "content": "1"},
    ]
    TestClient(start("ok").app).post("/v1/chat/completions", json={"messages": messages, "tools": TOOLS})
    (sample,) = Store(tmp_path / "store").samples()
    assert [message["content"] for message in sample.prompt[2:]] == ["1", "2"]
    assert [message.get("name") for message in sample.prompt[2:]] == ["first", "second"]
