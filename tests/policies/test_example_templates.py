"""The chat template of the examples: SmolLM2's own where there are no tools, and never rewriting what was said."""

from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from klimb.tasks import DEMONSTRATIONS, make_task
from klimb.tasks.tools import choose_format, tools_of

TEMPLATE = (Path(__file__).parents[2] / "examples" / "templates" / "smollm2-tools.jinja").read_text()

OWN = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
"""The template that SmolLM2-135M-Instruct comes with."""

KINDS = ("calculator", "guessing", "sql")


def render(messages, *, tools=None, template=TEMPLATE, asks=False):
    # As `apply_chat_template` calls it; only the first of the two results is the text.
    texts, _ = render_jinja_template(
        [list(messages)], tools=tools, chat_template=template, add_generation_prompt=asks, bos_token="<|im_start|>"
    )
    return texts[0]


def a_conversation(kind):
    task = make_task(kind, num_problems=60)
    assert task.environment is not None
    schemas = [tool.schema for tool in tools_of(task.environment())]
    return DEMONSTRATIONS[task.environment](task.train[0]), schemas


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("system", [(), ({"role": "system", "content": "Be brief."},)])
def test_without_tools_it_writes_what_the_models_own_template_writes(system, asks):
    turns = [
        {"role": "user", "content": "  Hello \n"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "1+1"},
    ]
    for length in range(1, 4):
        messages = [*system, *turns[:length]]
        assert render(messages, asks=asks) == render(messages, template=OWN, asks=asks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_is_a_prefix_of_the_one_that_goes_on(kind):
    messages, tools = a_conversation(kind)
    whole = render(messages, tools=tools)
    for length in range(1, len(messages)):
        is_asked = messages[length]["role"] == "assistant"
        assert whole.startswith(render(messages[:length], tools=tools, asks=is_asked))


@pytest.mark.parametrize("kind", KINDS)
def test_the_calls_that_it_writes_are_read_back_by_the_format_that_is_chosen_for_it(kind):
    messages, tools = a_conversation(kind)
    chosen = choose_format(TEMPLATE)
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(messages[:place], tools=tools, asks=True)
        said = render(messages[: place + 1], tools=tools).removeprefix(before).removesuffix("<|im_end|>\n")
        parsed = chosen.parse(said)
        asked = [each["function"]["name"] for each in message.get("tool_calls", ())]
        assert [each.name for each in parsed.calls] == asked
        assert parsed.error == ""
        assert parsed.content.strip() == message["content"]


def test_the_tools_stand_in_the_system_message_and_results_in_turns_of_their_own():
    messages, tools = a_conversation("calculator")
    text = render(messages, tools=tools)
    system, *_ = text.split("<|im_end|>")
    assert '"name": "calculate"' in system
    assert "<tools>" not in render(messages[:1])
    assert f"<|im_start|>tool\n{messages[2]['content']}<|im_end|>" in text


def test_two_calls_and_words_beside_them_are_each_written_once():
    calls = [{"type": "function", "function": {"name": name, "arguments": {"x": "ü"}}} for name in ("one", "two")]
    text = render([{"role": "user", "content": "Go."}, {"role": "assistant", "content": "Both.", "tool_calls": calls}])
    assert text.endswith(
        '<|im_start|>assistant\nBoth.\n<tool_call>\n{"name": "one", "arguments": {"x": "ü"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "two", "arguments": {"x": "ü"}}\n</tool_call><|im_end|>\n'
    )
