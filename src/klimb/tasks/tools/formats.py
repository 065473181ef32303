"""The call formats by name, and which one a chat template wants."""

from __future__ import annotations

import re
from collections.abc import Mapping

from klimb.tasks.protocol import did_you_mean
from klimb.tasks.tools.call_format import CallFormat, MarkedFormat
from klimb.tasks.tools.harmony import HARMONY
from klimb.tasks.tools.json_formats import (
    COHERE,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    HERMES,
    KIMI,
    LLAMA3,
    MISTRAL,
    MISTRAL_V11,
    PHI4,
)
from klimb.tasks.tools.literal_formats import CODE, GEMMA4, LFM2, LLAMA4, OLMO, PYTHONIC
from klimb.tasks.tools.tagged_formats import ATEM, DEEPSEEK_V32, GLM, MINIMAX, QWEN_XML

FORMATS: Mapping[str, CallFormat] = {
    each.name: each
    for each in (
        HERMES,
        LLAMA3,
        QWEN_XML,
        GLM,
        PYTHONIC,
        LLAMA4,
        LFM2,
        CODE,
        OLMO,
        MISTRAL,
        MISTRAL_V11,
        HARMONY,
        DEEPSEEK_V3,
        DEEPSEEK_V31,
        DEEPSEEK_V32,
        KIMI,
        GEMMA4,
        COHERE,
        PHI4,
        MINIMAX,
        ATEM,
    )
}
"""Call formats by name."""


NO_CALLS: CallFormat = MarkedFormat(
    name="none", expected="no call", read=lambda text, start, tools: iter(()), write=lambda calls: ""
)
"""Reads no calls: of a policy that is offered no tools, and whose chat template shows no format."""


SIGNS: tuple[tuple[str, CallFormat], ...] = (
    (r"｜DSML｜", DEEPSEEK_V32),
    (r"<｜tool▁call▁begin｜>[\s\S]*```json", DEEPSEEK_V3),
    (r"<｜tool▁call▁begin｜>", DEEPSEEK_V31),
    (r"<\|channel\|>[\s\S]*functions\.", HARMONY),
    (r"<\|tool_call_argument_begin\|>", KIMI),
    (r"\[TOOL_CALLS\][\s\S]*\[ARGS\]", MISTRAL_V11),
    (r"\[TOOL_CALLS\]", MISTRAL),
    (r"<\|tool_call>call:", GEMMA4),
    (r"<\|START_ACTION\|>", COHERE),
    (r"<atem:invoke", ATEM),
    (r"<minimax:tool_call|minimax:tool_call>", MINIMAX),
    (r"<\|tool_call_start\|>", LFM2),
    (r"<\|tool_call\|>", PHI4),
    (r"<function=[\s\S]*<parameter=", QWEN_XML),
    (r"<arg_key>", GLM),
    (r"<tool_call>", HERMES),
    (r"<function_calls>", OLMO),
    (r"\[func_name1\(", PYTHONIC),
    (r"<\|python_tag\|>|\"parameters\"\s*:[\s\S]*tool_call|\"name\"[^\n]*\"parameters\"", LLAMA3),
)
"""What in a chat template shows its format; the first that is found counts, so the more special stand first."""


SETTING = "environment.call_format"


def choose_format(chat_template: str) -> CallFormat:
    """Return the format in which a model of this chat template writes its calls.

    Raises:
        ValueError: the template is that of none that is known.
    """
    for sign, found in SIGNS:
        if re.search(sign, chat_template):
            return found
    says = "shows no format of tool calls" if "tool" in chat_template else "knows no tools"
    raise ValueError(
        f"the model's chat template {says} that is known here; state one with {SETTING}: {', '.join(FORMATS)}; "
        "or take a model, or a template, that was made for tools"
    )


def get_format(name: str) -> CallFormat:
    """Return the format of this name.

    Raises:
        ValueError: there is none; the nearest name is given.
    """
    if name not in FORMATS:
        raise ValueError(
            f"{SETTING} = {name!r} is none of the call formats {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        )
    return FORMATS[name]
