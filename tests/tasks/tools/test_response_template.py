"""A tokenizer that describes its own answers is read by that description."""

import json
from typing import Any

import pytest
from transformers.utils.chat_parsing import parse_response
from trl.chat_template_utils import gemma4_template, qwen3_template

from klimb.experience.samples import ToolCall
from klimb.tasks.tools import FORMATS, TokenizerFormat, Tool, describes_answers


class Tokenizer:
    """What a tokenizer with a response template does, without its vocabulary."""

    def __init__(self, template: dict[str, Any]):
        self.response_template = template

    def parse_response(self, response: str, *, prefix: str, tools: Any) -> Any:
        return parse_response(response, self.response_template, prefix=prefix, tools=tools)


CALL = ToolCall(name="f", arguments=json.dumps({"a": "x"}))


def test_a_turn_is_read_by_the_tokenizers_template():
    form = TokenizerFormat(tokenizer=Tokenizer(qwen3_template))
    turn = form.parse(f"<think>\nWell.\n</think>\n\nI look.\n{FORMATS['hermes'].render([CALL])}<|im_end|>")
    assert turn.calls == (CALL,)
    assert turn.content == "<think>\nWell.\n</think>\n\nI look."
    assert turn.error == ""


def test_what_the_template_wrote_before_the_turn_is_known():
    form = TokenizerFormat(tokenizer=Tokenizer(qwen3_template), prefix="<|im_start|>assistant\n<think>\n")
    assert form.parse("Well.\n</think>\n\nIt is 4.").content == "<think>\nWell.\n</think>\n\nIt is 4."


def test_it_reads_what_our_own_format_writes():
    form = TokenizerFormat(tokenizer=Tokenizer(gemma4_template))
    tool = Tool(name="f", description="", parameters={"properties": {"a": {"type": "string"}}}, function=print)
    assert form.parse(FORMATS["gemma4"].render([CALL]), [tool]).calls == (CALL,)


def test_what_it_cannot_read_is_an_error_for_the_policy():
    turn = TokenizerFormat(tokenizer=Tokenizer(qwen3_template)).parse("<tool_call>{oh}</tool_call>")
    assert turn.calls == ()
    assert turn.error.startswith("a tool call could not be read: ValueError: json parser could not parse")
    assert "\n" not in turn.error
    assert turn.content == "<tool_call>{oh}</tool_call>"


def test_it_cannot_write():
    with pytest.raises(ValueError, match="use its chat template"):
        TokenizerFormat(tokenizer=Tokenizer(qwen3_template)).render([CALL])


def test_a_tokenizer_says_whether_it_describes_its_answers():
    assert describes_answers(Tokenizer(qwen3_template))
    assert not describes_answers(object())
