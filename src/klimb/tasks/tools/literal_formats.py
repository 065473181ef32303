"""Formats in which a call is written in a notation of literals: Python's (Llama 4, LFM2, SmolLM3, OLMo) and Gemma's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import Block, MarkedFormat, between, load_arguments, make_call, show, skip_space
from klimb.tasks.tools.json_formats import NAME
from klimb.tasks.tools.literals import GEMMA, GEMMA_QUOTE, expect, read_mapping, read_python_call
from klimb.tasks.tools.tool import Tool


def _read_calls(text: str, at: int, tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    """Read `[f(a=1), g()]`, or calls without brackets, which then may stand in lines of their own."""
    at = skip_space(text, at)
    is_list = text.startswith("[", at)
    calls: list[ToolCall] = []
    at += is_list
    while True:
        call, at = read_python_call(text, at, tools)
        calls.append(call)
        following = skip_space(text, at)
        if text.startswith(",", following):
            at = following + 1
        elif is_list:
            return tuple(calls), expect(text, at, "]")
        elif "\n" not in text[at:following] or not CALL.match(text, following):
            return tuple(calls), at


CALL = re.compile(r"[^\W\d][\w.-]*\s*\(")


BARE_CALLS = re.compile(rf"\s*(?=\[\s*{CALL.pattern})")
"""What a turn begins with whose calls have no markers. Another list at the beginning is an answer."""


def _read_bare(text: str, start: int, tools: Mapping[str, Tool]) -> Iterator[Block]:
    """Yield the calls that a turn begins with, without markers."""
    found = BARE_CALLS.match(text, start)
    if not found:
        return
    try:
        calls, end = _read_calls(text, found.end(), tools)
    except ValueError as error:
        yield Block(start=found.end(), end=len(text), error=str(error))
        return
    yield Block(start=found.end(), end=end, calls=calls)


def write_python(call: ToolCall) -> str:
    """Return a call as Python writes it."""
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in load_arguments(call).items())})"


def _python_format(name: str, opening: str, closing: str, *, in_brackets: bool) -> MarkedFormat:
    before, after = (f"{opening}[", f"]{closing}") if in_brackets else (f"{opening}\n", f"\n{closing}")
    join = ", " if in_brackets else "\n"
    read: Callable[[str, int, Mapping[str, Tool]], Iterator[Block]] = (
        between(re.escape(opening), closing, _read_calls) if opening else _read_bare
    )

    def write(calls: Sequence[ToolCall]) -> str:
        return f"{before}{join.join(write_python(call) for call in calls)}{after}"

    return MarkedFormat(
        name=name,
        expected=f"{before}TOOL(ARGUMENT=VALUE){after}".replace("\n", "") + ", with values as Python writes them",
        read=read,
        write=write,
    )


PYTHONIC = _python_format("python", "", "", in_brackets=True)
"""`[f(a=1), g()]` and nothing before it: Llama 3.2 and 4."""


LLAMA4 = _python_format("llama4", "<|python_start|>", "<|python_end|>", in_brackets=True)


LFM2 = _python_format("lfm2", "<|tool_call_start|>", "<|tool_call_end|>", in_brackets=True)


CODE = _python_format("code", "<code>", "</code>", in_brackets=False)
"""SmolLM3, where its tools are Python's. Calls with literal arguments are read; other code is not run."""


OLMO = _python_format("olmo", "<function_calls>", "</function_calls>", in_brackets=False)


GEMMA_NAME = re.compile(rf"\s*call:(?P<name>{NAME})\s*(?=\{{)")


def _read_gemma(text: str, at: int, _tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
    found = GEMMA_NAME.match(text, at)
    if not found:
        raise ValueError(f"call:TOOL{{ was expected at {show(text[at : at + 30])}")
    arguments, end = read_mapping(text, found.end(), GEMMA)
    return (make_call(found["name"], arguments),), end


def _write_gemma_value(value: object) -> str:
    if isinstance(value, str):
        return f"{GEMMA_QUOTE}{value}{GEMMA_QUOTE}"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_write_gemma_key(key)}:{_write_gemma_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(_write_gemma_value(each) for each in value)}]"
    return json.dumps(value)


PLAIN_KEY = re.compile(r"\w+")


def _write_gemma_key(key: str) -> str:
    return key if PLAIN_KEY.fullmatch(key) else f"{GEMMA_QUOTE}{key}{GEMMA_QUOTE}"


def _write_gemma(calls: Sequence[ToolCall]) -> str:
    return "".join(
        f"<|tool_call>call:{call.name}{_write_gemma_value(load_arguments(call))}<tool_call|>" for call in calls
    )


GEMMA4 = MarkedFormat(
    name="gemma4",
    expected=f"<|tool_call>call:TOOL{{ARGUMENT:VALUE}}<tool_call|>, a text being {GEMMA_QUOTE}TEXT{GEMMA_QUOTE}",
    read=between(r"<\|tool_call>", "<tool_call|>", _read_gemma),
    write=_write_gemma,
    thought=("<|channel>thought", "<channel|>"),
)
"""A text that holds its own quote does not come back: the format has no way to write it."""
