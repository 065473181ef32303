"""Formats in which a call's arguments are JSON: Hermes, Llama 3, Mistral, DeepSeek, Kimi and others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import (
    Block,
    Body,
    MarkedFormat,
    Writer,
    between,
    make_call,
    read_json,
    show,
    skip_space,
)
from klimb.tasks.tools.literals import read_python_call
from klimb.tasks.tools.tool import Tool

NAME_KEYS, ARGUMENT_KEYS = ("name", "tool_name"), ("arguments", "parameters")


def call_of_object(value: object) -> ToolCall:
    """Return the call that an object describes: its `name`, and its `arguments` or `parameters`.

    Raises:
        ValueError: it describes none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a call is an object with a name and arguments, got {show(json.dumps(value))}")
    name = next((value[key] for key in NAME_KEYS if key in value), None)
    found = [value[key] for key in ARGUMENT_KEYS if key in value]
    if not found:
        raise ValueError(f"the call of {name!r} has no arguments; write {{}} where there are none")
    arguments = found[0]
    if isinstance(arguments, str):  # OpenAI's interface writes them so, and some models learned it
        arguments = read_whole(arguments)
    return make_call(name, arguments)


def read_whole(text: str) -> Any:
    """Return the JSON value that a text is.

    Raises:
        ValueError: it is none, or more than one.
    """
    value, end = read_json(text, 0)
    if skip_space(text, end) != len(text):
        raise ValueError(f"more than one JSON value: {show(text)}")
    return value


def read_objects(text: str, at: int, _tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    """Read one object that describes a call, or a list of them."""
    value, end = read_json(text, at)
    return tuple(call_of_object(each) for each in (value if isinstance(value, list) else [value])), end


def read_named(name: str) -> Body:
    """Return a reader of a call's name, by this pattern with a group `name`, and then of its arguments in JSON."""
    pattern = re.compile(name)

    def read(text: str, at: int, _tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
        found = pattern.match(text, at)
        if not found:
            raise ValueError(f"no name of a tool at {show(text[at : at + 30])}")
        arguments, end = read_json(text, found.end())
        return (make_call(found["name"], arguments),), end

    return read


def write_object(call: ToolCall, arguments_key: str = "arguments", name_key: str = "name") -> str:
    """Return a call as an object in JSON."""
    return f'{{"{name_key}": {json.dumps(call.name, ensure_ascii=False)}, "{arguments_key}": {call.arguments}}}'


def write_each(before: str, after: str, write: Callable[[ToolCall], str], join: str = "\n") -> Writer:
    """Return a writer of calls one by one."""

    def write_calls(calls: Sequence[ToolCall]) -> str:
        return join.join(f"{before}{write(call)}{after}" for call in calls)

    return write_calls


def write_list(before: str, after: str, write: Callable[[ToolCall], str] = write_object) -> Writer:
    """Return a writer of calls as one list."""

    def write_calls(calls: Sequence[ToolCall]) -> str:
        return f"{before}[{', '.join(write(call) for call in calls)}]{after}"

    return write_calls


HERMES = MarkedFormat(
    name="hermes",
    expected='<tool_call>{"name": "TOOL", "arguments": {"ARGUMENT": VALUE}}</tool_call> with valid JSON',
    read=between("<tool_call>", "</tool_call>", read_objects),
    write=write_each("<tool_call>\n", "\n</tool_call>", write_object),
)
"""Qwen2.5, Qwen3, SmolLM3, Hermes."""


PYTHON_TAG = "<|python_tag|>"


LLAMA_SEPARATOR = re.compile(r"\s*;?\s*")


def read_llama(text: str, start: int, tools: Mapping[str, Tool]) -> Iterator[Block]:
    """Yield the calls of a Llama 3 turn: behind its tag, or objects in JSON that the turn begins with.

    An object without a name and parameters at the beginning is an answer, not a call.
    """
    at = begins = skip_space(text, start)
    is_tagged = not _begins_call(text, at)
    if is_tagged:
        begins = text.find(PYTHON_TAG, start)
        if begins < 0:
            return
        at = skip_space(text, begins + len(PYTHON_TAG))
    calls: list[ToolCall] = []
    error, end = "", at
    while at < len(text) and not error:
        try:
            found, end = _read_llama_call(text, at, tools)
            calls += found
        except ValueError as wrong:
            error, end = str(wrong), len(text)
        separator = LLAMA_SEPARATOR.match(text, end)
        at = separator.end() if separator else end
        if not is_tagged and not text.startswith("{", at):
            break
    if not calls and not error:
        error = f"nothing follows {PYTHON_TAG}"
    yield Block(start=begins, end=end, calls=tuple(calls), error=error)


LLAMA_BEGINNING = re.compile(r'\{\s*"name"\s*:')


def _begins_call(text: str, at: int) -> bool:
    """Tell whether what stands there is a call, or was meant to be one."""
    try:
        value, _ = read_json(text, at)
    except ValueError:
        return LLAMA_BEGINNING.match(text, at) is not None
    return isinstance(value, dict) and "name" in value and any(key in value for key in ARGUMENT_KEYS)


def _read_llama_call(text: str, at: int, tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    """Read an object, or a call of a built-in tool: `brave_search.call(query="...")`."""
    if text.startswith(("{", "["), at):
        return read_objects(text, at, tools)
    call, end = read_python_call(text, at, tools)
    return (ToolCall(name=call.name.removesuffix(".call"), arguments=call.arguments),), end


LLAMA3 = MarkedFormat(
    name="llama3",
    expected='{"name": "TOOL", "parameters": {"ARGUMENT": VALUE}} in valid JSON and nothing else',
    read=read_llama,
    write=write_each("", "", lambda call: write_object(call, "parameters"), join="; "),
)
"""Llama 3.1, 3.2 and 3.3. Their template gives back one call a turn; several are read."""


NAME = r"[^\s<>|｜\[\]{}()\"'=,;]+"
"""Of a tool, where it stands without quotes."""


read_mistral_call = read_named(rf"\s*(?P<name>{NAME})\s*(?:\[CALL_ID\]\s*[\w-]*\s*)?(?:\[ARGS\])?")


JSON_BEGINS = re.compile(r"\{|\[\s*[{\]]")


def _read_mistral(text: str, at: int, tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    """Read a list of objects, as the earlier models write it, or a name and arguments, as the later ones do."""
    begins = skip_space(text, at)
    if JSON_BEGINS.match(text, begins):
        return read_objects(text, begins, tools)
    return read_mistral_call(text, at, tools)


MISTRAL = MarkedFormat(
    name="mistral",
    expected='[TOOL_CALLS] [{"name": "TOOL", "arguments": {"ARGUMENT": VALUE}}] with valid JSON',
    read=between(r"\[TOOL_CALLS\]", None, _read_mistral),
    write=write_list("[TOOL_CALLS] ", ""),
    thought=("[THINK]", "[/THINK]"),
)
"""Mistral up to its tokenizer v7."""


MISTRAL_V11 = MarkedFormat(
    name="mistral-v11",
    expected='[TOOL_CALLS]TOOL[ARGS]{"ARGUMENT": VALUE} with valid JSON',
    read=MISTRAL.read,
    write=write_each("", "", lambda call: f"[TOOL_CALLS]{call.name}[ARGS]{call.arguments}", join=""),
    thought=("[THINK]", "[/THINK]"),
)


DEEPSEEK_BEGIN, DEEPSEEK_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"


DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"


DEEPSEEK_NAME = re.compile(
    rf"\s*(?:\w+{DEEPSEEK_SEPARATOR}(?P<old>{NAME})\s*```json\s*|(?P<name>{NAME}){DEEPSEEK_SEPARATOR})"
)


DEEPSEEK_FENCE = re.compile(r"\s*```")


def _read_deepseek(text: str, at: int, _tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    found = DEEPSEEK_NAME.match(text, at)
    if not found:
        raise ValueError(f"no name of a tool at {show(text[at : at + 30])}")
    arguments, end = read_json(text, found.end())
    if found["old"]:
        fence = DEEPSEEK_FENCE.match(text, end)
        if not fence:
            raise ValueError(f"``` was expected before {show(text[end : end + 30])}")
        end = fence.end()
    return (make_call(found["old"] or found["name"], arguments),), end


def _write_deepseek(calls: Sequence[ToolCall], write: Callable[[ToolCall], str], join: str) -> str:
    written = write_each(DEEPSEEK_BEGIN, DEEPSEEK_END, write, join=join)(calls)
    return f"<｜tool▁calls▁begin｜>{written}<｜tool▁calls▁end｜>"


DEEPSEEK_LITTER = re.compile("<｜tool▁calls▁(?:begin|end)｜>")


DEEPSEEK_V3 = MarkedFormat(
    name="deepseek-v3",
    expected=f'{DEEPSEEK_BEGIN}function{DEEPSEEK_SEPARATOR}TOOL, a line ```json, a line {{"ARGUMENT": VALUE}} with '
    f"valid JSON, a line ```, {DEEPSEEK_END}",
    read=between(DEEPSEEK_BEGIN, DEEPSEEK_END, _read_deepseek),
    write=lambda calls: _write_deepseek(
        calls, lambda call: f"function{DEEPSEEK_SEPARATOR}{call.name}\n```json\n{call.arguments}\n```", "\n"
    ),
    litter=DEEPSEEK_LITTER,
)
"""DeepSeek V3 and R1."""


DEEPSEEK_V31 = MarkedFormat(
    name="deepseek-v3.1",
    expected=f'{DEEPSEEK_BEGIN}TOOL{DEEPSEEK_SEPARATOR}{{"ARGUMENT": VALUE}}{DEEPSEEK_END} with valid JSON',
    read=DEEPSEEK_V3.read,
    write=lambda calls: _write_deepseek(calls, lambda call: f"{call.name}{DEEPSEEK_SEPARATOR}{call.arguments}", ""),
    litter=DEEPSEEK_LITTER,
)


KIMI_BEGIN, KIMI_ARGUMENTS, KIMI_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"


def _write_kimi(calls: Sequence[ToolCall]) -> str:
    written = "".join(
        f"{KIMI_BEGIN}functions.{call.name}:{number}{KIMI_ARGUMENTS}{call.arguments}{KIMI_END}"
        for number, call in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{written}<|tool_calls_section_end|>"


KIMI = MarkedFormat(
    name="kimi",
    expected=f'{KIMI_BEGIN}functions.TOOL:0{KIMI_ARGUMENTS}{{"ARGUMENT": VALUE}}{KIMI_END} with valid JSON',
    read=between(
        re.escape(KIMI_BEGIN),
        KIMI_END,
        read_named(rf"\s*(?:functions\.)?(?P<name>[^\s<>|:]+)(?::\d+)?\s*{re.escape(KIMI_ARGUMENTS)}"),
    ),
    write=_write_kimi,
    litter=re.compile(r"<\|tool_calls_section_(?:begin|end)\|>"),
)
"""Kimi K2."""


COHERE = MarkedFormat(
    name="cohere",
    expected='<|START_ACTION|>[{"tool_name": "TOOL", "parameters": {"ARGUMENT": VALUE}}]<|END_ACTION|> with valid JSON',
    read=between(r"<\|START_ACTION\|>", "<|END_ACTION|>", read_objects),
    write=write_list("<|START_ACTION|>", "<|END_ACTION|>", lambda call: write_object(call, "parameters", "tool_name")),
    thought=("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""Command R7B and A."""


PHI4 = MarkedFormat(
    name="phi4",
    expected='<|tool_call|>[{"name": "TOOL", "arguments": {"ARGUMENT": VALUE}}]<|/tool_call|> with valid JSON',
    read=between(r"<\|tool_call\|>", "<|/tool_call|>", read_objects),
    write=write_list("<|tool_call|>", "<|/tool_call|>"),
)
"""Phi-4-mini; Granite 3, which writes no second marker."""
