"""Formats in which each argument has tags of its own: Qwen3-Coder and Nemotron, GLM, MiniMax, DeepSeek V3.2, Muse.

Values stand there as they are, without quotes, so that their types come from the tool's schema; and a text that holds
the very tags with which an argument ends is cut there, because the formats have no way to write it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import (
    MarkedFormat,
    between,
    load_arguments,
    make_call,
    read_json,
    show,
    skip_space,
)
from klimb.tasks.tools.json_formats import NAME, write_each
from klimb.tasks.tools.tool import Tool

WORDS: Mapping[str, object] = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
"""Templates write Python's words where they turn a value into text."""


def read_typed(written: str, name: str, tool: Tool | None) -> Any:
    """Return the value that stands for an argument.

    It has a type that the tool's schema gives it; where it has none of them, or the schema allows texts alone, it is
    the text itself. Without a schema it is what it reads as in JSON, and else the text.
    """
    properties = tool.parameters.get("properties", {}) if tool else {}
    kinds = _kinds_of(properties.get(name, {}))
    value = _read_plain(written)
    if not kinds:
        return written if isinstance(value, str) else value
    for kind in kinds:
        if _is_of_kind(value, kind):
            return int(value) if kind == "integer" else value
    return written


def _kinds_of(schema: object) -> list[str]:
    """Return the types that a schema allows, those of its alternatives too."""
    if not isinstance(schema, Mapping):
        return []
    kind = schema.get("type", [])
    kinds = [kind] if isinstance(kind, str) else list(kind)
    for word in ("anyOf", "oneOf"):
        kinds += [each for part in schema.get(word, ()) for each in _kinds_of(part)]
    return [*kinds, "null"] if schema.get("nullable") else kinds


def _read_plain(written: str) -> Any:
    """Return the value as JSON or as one of Python's words; the text itself where it is neither."""
    stripped = written.strip()
    if stripped in WORDS:
        return WORDS[stripped]
    try:
        value, end = read_json(written, 0)
    except ValueError:
        return written
    is_whole = skip_space(written, end) == len(written) and not (isinstance(value, float) and math.isinf(value))
    return value if is_whole else written


def _is_of_kind(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float):
        return kind == "number" or (kind == "integer" and value.is_integer())
    types: Mapping[str, type] = {"integer": int, "number": int, "null": type(None), "array": list, "object": dict}
    return kind in types and isinstance(value, types[kind])


def write_plain(value: object) -> str:
    """Return a text as it is and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tagged(
    opening: str, argument: str, ending: str, closing: str, *, in_lines: bool = False
) -> Callable[[str, int, Mapping[str, Tool]], tuple[tuple[ToolCall, ...], int]]:
    """Return a reader of a call whose arguments have tags.

    Args:
        opening: pattern of what stands before the arguments, with the group `name`.
        argument: pattern of what stands before an argument's value, with the group `key`.
        ending: pattern of what stands behind it, beginning with a plain text, for which a search is quick; what
            follows must be another argument or the closing.
        closing: pattern of what stands behind the arguments.
        in_lines: whether a value stands in lines of its own, so that one line end on each side is none of it.
    """
    begins, key = re.compile(rf"\s*{opening}"), re.compile(rf"\s*{argument}")
    ends = re.compile(rf"{ending}(?=\s*(?:{_without_groups(argument)}|{closing}|\Z))")
    closes = re.compile(rf"\s*(?:{closing})")

    def read(text: str, at: int, tools: Mapping[str, Tool]) -> tuple[tuple[ToolCall, ...], int]:
        head = begins.match(text, at)
        if not head:
            raise ValueError(f"no name of a tool at {show(text[at : at + 40])}")
        name, at = head["name"].strip(), head.end()
        arguments: dict[str, Any] = {}
        while found := key.match(text, at):
            end = ends.search(text, found.end())
            if not end:
                raise ValueError(f"argument {found['key']!r} of {name} is not closed")
            written = text[found.end() : end.start()]
            if in_lines:
                written = written.removeprefix("\n").removesuffix("\n")
            is_text = found.groupdict().get("is_text") == "true"
            arguments[found["key"].strip()] = written if is_text else read_typed(written, found["key"], tools.get(name))
            at = end.end()
        tail = closes.match(text, at)
        if not tail:
            raise ValueError(f"the call of {name} is not closed before {show(text[at : at + 40])}")
        return (make_call(name, arguments),), tail.end()

    return read


def _without_groups(pattern: str) -> str:
    return re.sub(r"\(\?P<\w+>", "(?:", pattern)


def _write_qwen(call: ToolCall) -> str:
    arguments = "".join(
        f"<parameter={key}>\n{write_plain(value)}\n</parameter>\n" for key, value in load_arguments(call).items()
    )
    return f"<tool_call>\n<function={call.name}>\n{arguments}</function>\n</tool_call>"


QWEN_XML = MarkedFormat(
    name="qwen-xml",
    expected="<tool_call><function=TOOL><parameter=ARGUMENT>VALUE</parameter></function></tool_call>, each tag in a "
    "line of its own",
    read=between(
        "<tool_call>|<function=",
        None,
        _tagged(
            opening=r"(?:<tool_call>\s*)?<function=(?P<name>[^>\n]+)>",
            argument=r"<parameter=(?P<key>[^>\n]+)>",
            ending=r"</parameter>",
            closing=r"</function>(?:\s*</tool_call>)?",
            in_lines=True,
        ),
        keeps_opening=True,
    ),
    write=write_each("", "", _write_qwen),
)
"""Qwen3-Coder, Qwen3.5 and later, Nemotron 3."""


def _write_glm(call: ToolCall) -> str:
    arguments = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{write_plain(value)}</arg_value>\n"
        for key, value in load_arguments(call).items()
    )
    return f"<tool_call>{call.name}\n{arguments}</tool_call>"


GLM = MarkedFormat(
    name="glm",
    expected="<tool_call>TOOL, then <arg_key>ARGUMENT</arg_key><arg_value>VALUE</arg_value> for each argument, then "
    "</tool_call>",
    read=between(
        "<tool_call>",
        None,
        _tagged(
            opening=r"(?P<name>[^\s<]+)",
            argument=r"<arg_key>(?P<key>[^<\n]+)</arg_key>\s*<arg_value>",
            ending=r"</arg_value>",
            closing=r"</tool_call>",
        ),
    ),
    write=write_each("", "", _write_glm),
)
"""GLM 4.5 and later."""


PREFIX = r"(?:｜DSML｜|[\w-]+:)?"


INVOKE = between(
    rf"<{PREFIX}invoke\b",
    None,
    _tagged(
        opening=rf"<{PREFIX}invoke\s+name=\"?(?P<name>{NAME})\"?>",
        argument=rf"<{PREFIX}parameter\s+name=\"?(?P<key>[^\">\n]+)\"?(?:\s+string=\"(?P<is_text>true|false)\")?>",
        ending=rf"</{PREFIX}parameter>",
        closing=rf"</{PREFIX}invoke>",
    ),
    keeps_opening=True,
)


INVOKE_LITTER = re.compile(rf"</?{PREFIX}(?:function_calls|tool_calls?)>\n?")


def _invoke_format(name: str, prefix: str, wrapper: str, *, says_texts: bool = False) -> MarkedFormat:
    """Return a format of `<invoke name="..."><parameter name="...">`, with a prefix before each tag.

    Args:
        name: what settings call it.
        prefix: of the tags of calls and arguments.
        wrapper: the tag around all calls, with its prefix.
        says_texts: whether an argument says if it is a text.
    """

    def write_call(call: ToolCall) -> str:
        arguments = "".join(
            f'<{prefix}parameter name="{key}"{_says(value) if says_texts else ""}>{write_plain(value)}'
            f"</{prefix}parameter>\n"
            for key, value in load_arguments(call).items()
        )
        return f'<{prefix}invoke name="{call.name}">\n{arguments}</{prefix}invoke>\n'

    def write(calls: Sequence[ToolCall]) -> str:
        return f"<{wrapper}>\n{''.join(write_call(call) for call in calls)}</{wrapper}>"

    says = ' string="true or false"' if says_texts else ""
    return MarkedFormat(
        name=name,
        expected=f'<{wrapper}><{prefix}invoke name="TOOL"><{prefix}parameter name="ARGUMENT"{says}>VALUE'
        f"</{prefix}parameter></{prefix}invoke></{wrapper}>",
        read=INVOKE,
        write=write,
        litter=INVOKE_LITTER,
    )


def _says(value: object) -> str:
    return f' string="{"true" if isinstance(value, str) else "false"}"'


MINIMAX = _invoke_format("minimax", "", "minimax:tool_call")
"""MiniMax M2."""


DEEPSEEK_V32 = _invoke_format("deepseek-v3.2", "｜DSML｜", "｜DSML｜function_calls", says_texts=True)


ATEM = _invoke_format("atem", "atem:", "atem:function_calls")
"""Muse Glimmer."""
