"""A call format: how a model writes the calls of a turn, read and written.

The text of a turn is given as it was drawn: decoded with its special tokens, because some formats are made of them
(`<|python_tag|>`, `[TOOL_CALLS]`). The token that ended the turn is left out; the usual ones may be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.tool import Tool

ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|eot|>",
    "<|eom|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|user|>",
    "<|observation|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
    "<｜end▁of▁sentence｜>",
)
"""What a model may end a turn with; no part of what it says. `</s>` is not among them: HTML has it too."""


LONGEST_SHOWN = 120
"""Characters of what could not be read that an error shows."""


Properties = Mapping[str, Mapping[str, Any]]
"""By the tool's name, the schemas of its parameters."""


@dataclass(frozen=True, kw_only=True)
class ParsedTurn:
    """What a turn says and which tools it calls.

    Attributes:
        content: the text without its calls; thoughts before them are kept.
        calls: in the order in which they stand; empty where the turn calls no tool.
        error: one line for the policy: what of its calls could not be read, and what was expected; empty where all is
            well. Calls beside it that could be read are in `calls`.
    """

    content: str
    calls: tuple[ToolCall, ...] = ()
    error: str = ""


@runtime_checkable
class CallFormat(Protocol):
    """How a model writes calls."""

    @property
    def name(self) -> str:
        """What settings call it."""
        ...

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedTurn:
        """Return what a turn says and which tools it calls; raises for no text whatever.

        Args:
            text: of the turn, decoded with its special tokens.
            tools: on offer. A format that writes values without their types takes these from the tools' schemas;
                without them `7` is a number there.
        """
        ...

    def render(self, calls: Sequence[ToolCall]) -> str:
        """Return calls as a model writes them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of a turn, `text[start:end]`, that is meant to be a call, or several."""

    start: int
    end: int
    calls: tuple[ToolCall, ...] = ()
    error: str = ""


Reader = Callable[[str, int, Mapping[str, Tool]], Iterator[Block]]
"""Yields the blocks of a text from a position on; the tools on offer by name."""


Writer = Callable[[Sequence[ToolCall]], str]
"""Returns calls as a model writes them."""


NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, kw_only=True)
class MarkedFormat:
    """A format whose calls stand between markers, or at the beginning of the turn.

    Attributes:
        expected: a call in one line, for the policy.
        read: finds the calls.
        write: returns calls as a model writes them.
        thought: what a thought begins and ends with. Calls inside it are none.
        litter: text around calls that is neither a call nor said.
    """

    name: str
    expected: str
    read: Reader
    write: Writer
    thought: tuple[str, str] = ("<think>", "</think>")
    litter: re.Pattern[str] = NOTHING

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedTurn:
        """Return what a turn says and which tools it calls."""
        text = strip_end(text)
        start, blocks = self._find_blocks(text, {tool.name: tool for tool in tools})
        if not blocks:
            return ParsedTurn(content=text)
        pieces, at = [], start
        for block in blocks:
            pieces.append(text[at : block.start])
            at = block.end
        said = "".join(self.litter.sub("", piece) for piece in [*pieces, text[at:]])
        errors = [block.error for block in blocks if block.error]
        return ParsedTurn(
            content=(text[:start] + said).rstrip(),
            calls=tuple(call for block in blocks for call in block.calls),
            error=f"a tool call could not be read: {errors[0]}; expected {self.expected}" if errors else "",
        )

    def render(self, calls: Sequence[ToolCall]) -> str:
        """Return calls as a model writes them."""
        return self.write(calls)

    def _find_blocks(self, text: str, tools: Mapping[str, Tool]) -> tuple[int, list[Block]]:
        """Return where the thought ends, and the blocks behind it.

        A thought may have been begun by the template: then only its end is here. An end inside of a call's argument is
        none.
        """
        opening, closing = self.thought
        end = text.find(closing)
        behind = end + len(closing)
        if text.lstrip().startswith(opening):
            return (behind, list(self.read(text, behind, tools))) if end >= 0 else (len(text), [])
        blocks = list(self.read(text, 0, tools))
        is_argument = any(block.start < end < block.end and not block.error for block in blocks)
        return (0, blocks) if end < 0 or is_argument else (behind, list(self.read(text, behind, tools)))


def strip_end(text: str) -> str:
    """Return a turn's text without the token that ended it."""
    trimmed = text.rstrip()
    for end in ENDS:
        if trimmed.endswith(end):
            return trimmed[: -len(end)]
    return text


Body = Callable[[str, int, Mapping[str, Tool]], tuple[tuple[ToolCall, ...], int]]
"""Reads calls from a position on and returns them with where they end; a ValueError says why it cannot."""


def between(opening: str, closing: str | None, read_body: Body, *, keeps_opening: bool = False) -> Reader:
    """Return a reader of calls that stand between two markers.

    Args:
        opening: regular expression of the first marker.
        closing: the second; the turn may end without it. None where there is none.
        read_body: reads what stands between.
        keeps_opening: whether the body begins with the first marker, not behind it.
    """
    pattern = re.compile(opening)

    def read(text: str, start: int, tools: Mapping[str, Tool]) -> Iterator[Block]:
        found = pattern.search(text, start)
        while found:
            block = read_block(text, found, tools)
            yield block
            found = pattern.search(text, block.end)

    def read_block(text: str, found: re.Match[str], tools: Mapping[str, Tool]) -> Block:
        try:
            calls, end = read_body(text, found.start() if keeps_opening else found.end(), tools)
            end = _skip_closing(text, end, closing)
        except ValueError as error:
            return Block(start=found.start(), end=_find_end(text, found.end(), closing, pattern), error=str(error))
        return Block(start=found.start(), end=end, calls=calls)

    return read


def _skip_closing(text: str, at: int, closing: str | None) -> int:
    if closing is None:
        return at
    behind = skip_space(text, at)
    if text.startswith(closing, behind):
        return behind + len(closing)
    if behind == len(text):
        return behind
    raise ValueError(f"{closing} was expected before {show(text[behind : behind + 30])}")


def _find_end(text: str, start: int, closing: str | None, opening: re.Pattern[str]) -> int:
    """Return where a block that could not be read ends: behind its closing marker, or where the next one begins."""
    following = opening.search(text, start)
    limit = following.start() if following else len(text)
    end = text.find(closing, start, limit) if closing else -1
    return end + len(closing or "") if end >= 0 else limit


SPACE = re.compile(r"\s*")


def skip_space(text: str, at: int) -> int:
    """Return the position of the first character that is no space."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def show(text: str) -> str:
    """Return the beginning of a text, in one line."""
    line = json.dumps(text[:LONGEST_SHOWN], ensure_ascii=False)
    return f"{line[:-1]}…{line[-1]}" if len(text) > LONGEST_SHOWN else line


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_json(text: str, at: int) -> tuple[Any, int]:
    """Return the JSON value at a position, and where it ends: a marker inside of a string ends nothing.

    Raises:
        ValueError: there is none, in one line.
    """
    at = skip_space(text, at)
    try:
        return DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        near = text[error.pos : error.pos + 30]
        where = f"at {show(near)}" if near else "where the text ends"
        raise ValueError(f"no valid JSON: {error.msg} {where}") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def make_call(name: object, arguments: object) -> ToolCall:
    """Return a call.

    Raises:
        ValueError: the name is no text, the arguments are no object, or they hold what JSON cannot.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("the call names no tool")
    if not isinstance(arguments, dict):
        raise ValueError(f"the arguments of {name} must be an object, got {show(json.dumps(arguments, default=repr))}")
    try:
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        f"{name}{written}".encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the call of {name[:40]!r} holds half a character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the arguments of {name} cannot be written as JSON: {error}") from error
    return ToolCall(name=name, arguments=written)


def load_arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as an object."""
    return json.loads(call.arguments)
