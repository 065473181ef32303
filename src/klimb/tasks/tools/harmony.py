"""The format of gpt-oss: messages on channels, a call being a message to a function.

    <|channel|>analysis<|message|>THOUGHT<|end|><|start|>assistant<|channel|>commentary to=functions.TOOL
    <|constrain|>json<|message|>{"ARGUMENT": VALUE}<|call|>

Source: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import ParsedTurn, make_call, read_json, show, skip_space
from klimb.tasks.tools.tool import Tool

MESSAGE = "<|message|>"


ENDING = re.compile(r"<\|(?:end|call|return)\|>|(?=<\|start\|>)|\Z")


RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<|]+)")


CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


@dataclass
class _Messages:
    """What the messages of a turn were, as they are read."""

    said: dict[str, list[str]] = field(default_factory=dict)
    calls: list[ToolCall] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Harmony:
    """Messages on channels.

    The content is what was said on the final channel; where there is nothing, the preamble on `commentary` and what
    was thought on `analysis`, which is where the template of these models puts the content of a turn with calls.
    """

    name: str = "harmony"

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedTurn:
        """Return what a turn says and which tools it calls."""
        if MESSAGE not in text:
            return ParsedTurn(content=text)
        messages, at = _Messages(), 0
        while (end := text.find(MESSAGE, at)) >= 0:
            at = _read_message(text, text[at:end], end + len(MESSAGE), messages)
        said = messages.said
        parts = said.get("final") or [*said.get("analysis", []), *said.get("commentary", [])]
        return ParsedTurn(content="\n".join(parts), calls=tuple(messages.calls), error=messages.error)

    def render(self, calls: Sequence[ToolCall]) -> str:
        """Return calls as a model writes them."""
        return "<|start|>assistant".join(
            f"<|channel|>commentary to=functions.{call.name} <|constrain|>json{MESSAGE}{call.arguments}<|call|>"
            for call in calls
        )


def _read_message(text: str, header: str, start: int, messages: _Messages) -> int:
    """Read the message that starts there and return where the next header does."""
    recipient = RECIPIENT.search(header)
    if recipient:
        try:
            call, start = _read_call(text, recipient[1], start)
            messages.calls.append(call)
        except ValueError as error:
            messages.error = messages.error or (
                f"a tool call could not be read: {error}; expected <|channel|>commentary to=functions.TOOL "
                f'<|constrain|>json{MESSAGE}{{"ARGUMENT": VALUE}}<|call|> with valid JSON'
            )
    ending = ENDING.search(text, start)
    end = ending.start() if ending else len(text)
    if not recipient:
        channel = CHANNEL.search(header)
        messages.said.setdefault(channel[1] if channel else "final", []).append(text[start:end])
    return ending.end() if ending else end


def _read_call(text: str, name: str, start: int) -> tuple[ToolCall, int]:
    arguments, end = read_json(text, start)
    call = make_call(name, arguments)
    behind = skip_space(text, end)
    if behind < len(text) and not text.startswith(("<|call|>", "<|end|>", "<|return|>", "<|start|>"), behind):
        raise ValueError(f"<|call|> was expected before {show(text[behind : behind + 30])}")
    return call, end


HARMONY = Harmony()
