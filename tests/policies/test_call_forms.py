"""Tool calls reach a chat template in the form that it reads, whichever that is."""

import pytest
from tests.policies.chat_tokenizers import chat_tokenizer

from klimb.policies.call_forms import CallForm, call_form_of, template_messages
from klimb.policies.tokenizer import render_chat

TURN = "{% for m in messages %}{{ m.role ~ ':' ~ (m.content if m.content is defined else '') }}"
END = "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LOOP = "{% for c in m.tool_calls or [] %}{{ WRITTEN }}{% endfor %}"


def tokenizer_that_writes(written: str, *, only_if: str = "true"):
    return chat_tokenizer(f"{TURN}{{% if {only_if} %}}{LOOP.replace('WRITTEN', written)}{{% endif %}}{END}")


def messages(arguments, content: str = "", num_calls: int = 1) -> list:
    call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
    results = [{"role": "tool", "name": "add", "content": "5"}] * num_calls
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": content, "tool_calls": [call] * num_calls},
        *results,
    ]


NAME = "c.function.name ~ ' '"


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (f"{NAME} ~ c.function.arguments | tojson", CallForm()),
        (f"{NAME} + c.function.arguments", CallForm(arguments_as_text=True)),
        (f"{NAME} ~ c.function.arguments", CallForm(arguments_as_text=True)),
        ("'a call'", CallForm(is_rendered=False)),
    ],
)
def test_the_form_is_found_by_trying(written: str, form: CallForm):
    assert call_form_of(tokenizer_that_writes(written)) == form


def test_a_template_that_writes_calls_only_without_content_gets_none():
    tokenizer = tokenizer_that_writes(f"{NAME} ~ c.function.arguments | tojson", only_if="m.content is not defined")
    assert call_form_of(tokenizer) == CallForm(omits_no_content=True)
    assert "content" not in template_messages(tokenizer, messages({"x": 1}))[1]
    assert template_messages(tokenizer, messages({"x": 1}, content="hm"))[1]["content"] == "hm"


@pytest.mark.parametrize("arguments", [{"x": 1, "y": "é"}, '{"x": 1, "y": "é"}'])
@pytest.mark.parametrize("written", ["c.function.arguments | tojson", "' ' + c.function.arguments"])
def test_arguments_come_as_an_object_or_as_text_and_are_written_once(arguments, written: str):
    tokenizer = tokenizer_that_writes(f"c.function.name ~ {written}")
    text = tokenizer.decode(render_chat(tokenizer, messages(arguments)))
    assert '{"x": 1, "y": "é"}' in text


def test_a_template_that_is_changed_is_tried_again():
    tokenizer = tokenizer_that_writes(f"{NAME} + c.function.arguments")
    assert call_form_of(tokenizer).arguments_as_text
    tokenizer.chat_template = tokenizer_that_writes(f"{NAME} ~ c.function.arguments | tojson").chat_template
    assert not call_form_of(tokenizer).arguments_as_text


def test_results_have_the_ids_of_the_calls_before_them_in_their_order():
    tokenizer = tokenizer_that_writes(f"{NAME} ~ c.function.arguments | tojson")
    given = [*messages({}, num_calls=2), *messages({})[1:]]
    written = template_messages(tokenizer, given)
    calls = [call["id"] for message in written for call in message.get("tool_calls", ())]
    results = [message["tool_call_id"] for message in written if message["role"] == "tool"]
    assert calls == results == ["call00000", "call00001", "call00002"]
    assert all(len(one) == 9 and one.isalnum() for one in calls)
    assert "id" not in given[1]["tool_calls"][0]


def test_ids_that_are_given_are_kept():
    tokenizer = tokenizer_that_writes(f"{NAME} ~ c.function.arguments | tojson")
    given = messages({})
    given[1]["tool_calls"] = [{**given[1]["tool_calls"][0], "id": "abcdef123"}]
    written = template_messages(tokenizer, given)
    assert [written[1]["tool_calls"][0]["id"], written[2]["tool_call_id"]] == ["abcdef123", "abcdef123"]


def test_plain_messages_are_given_on_as_they_are():
    tokenizer = tokenizer_that_writes("''")
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]
    assert template_messages(tokenizer, plain) == plain
