"""A tokenizer that describes its own answers is read by that description."""

import json
from typing import Any

import pytest
from transformers.utils.chat_parsing import parse_response

from klimb.experience.samples import ToolCall
from klimb.tasks.tools import FORMATS, TokenizerFormat, Tool, describes_answers

THOUGHT = {"open": "<think>", "close_pattern": r"</think>\s*", "content": "text"}
FUNCTION = {"type": "function", "function": "{content}"}
HERMES: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": THOUGHT,
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": FUNCTION,
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""What a tokenizer of Qwen3's would say of itself."""


TAGGED: dict[str, Any] = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<tool_call>\s*<function=(?P<name>[^>]+)>",
            "close_pattern": r"</function>\s*</tool_call>\s*",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {
                "tag_pattern": r"<parameter=(?P<key>[^>]+)>\n(?P<value>.*?)\n</parameter>",
                "value_parser": {"name": "text"},
            },
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {"content": "text"},
    },
}


class Tokenizer:
    """What a tokenizer with a response template does, without its vocabulary."""

    def __init__(self, template: dict[str, Any]):
        self.response_template = template

    def parse_response(self, response: str, *, prefix: str, tools: Any) -> Any:
        return parse_response(response, self.response_template, prefix=prefix, tools=tools)


CALL = ToolCall(name="f", arguments=json.dumps({"a": "x"}))


def test_a_turn_is_read_by_the_tokenizers_template():
    form = TokenizerFormat(tokenizer=Tokenizer(HERMES))
    turn = form.parse(f"<think>\nWell.\n</think>\n\nI look.\n{FORMATS['hermes'].render([CALL])}<|im_end|>")
    assert turn.calls == (CALL,)
    assert turn.content == "<think>\nWell.\n</think>\n\nI look."
    assert turn.error == ""


def test_what_the_template_wrote_before_the_turn_is_known():
    form = TokenizerFormat(tokenizer=Tokenizer(HERMES), prefix="<|im_start|>assistant\n<think>\n")
    assert form.parse("Well.\n</think>\n\nIt is 4.").content == "<think>\nWell.\n</think>\n\nIt is 4."


def test_it_reads_what_our_own_format_writes():
    form = TokenizerFormat(tokenizer=Tokenizer(TAGGED))
    parameters = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    tool = Tool(name="f", description="", parameters=parameters, function=print)
    call = ToolCall(name="f", arguments=json.dumps({"a": "1", "b": 1}))
    assert form.parse(FORMATS["qwen-xml"].render([call]), [tool]).calls == (call,)


def test_what_it_cannot_read_is_an_error_for_the_policy():
    turn = TokenizerFormat(tokenizer=Tokenizer(HERMES)).parse("<tool_call>{oh}</tool_call>")
    assert turn.calls == ()
    assert turn.error.startswith("a tool call could not be read: ValueError: json parser could not parse")
    assert "\n" not in turn.error
    assert turn.content == "<tool_call>{oh}</tool_call>"


def test_it_cannot_write():
    with pytest.raises(ValueError, match="use its chat template"):
        TokenizerFormat(tokenizer=Tokenizer(HERMES)).render([CALL])


def test_a_tokenizer_says_whether_it_describes_its_answers():
    assert describes_answers(Tokenizer(HERMES))
    assert not describes_answers(object())
