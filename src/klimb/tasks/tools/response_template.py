"""A tokenizer's own description of its answers, `response_template`, as a call format.

transformers reads a turn with it (`tokenizer.parse_response`, from version 5.13 on). Few tokenizers have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from klimb.experience.samples import ToolCall
from klimb.tasks.tools.call_format import ParsedTurn, make_call
from klimb.tasks.tools.tool import Tool


@runtime_checkable
class ReadsResponses(Protocol):
    """A tokenizer that has a `response_template`."""

    def parse_response(self, response: str, *, prefix: str, tools: Any) -> Any:
        """Return the message that a text is."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenizerFormat:
    """The format that a tokenizer describes itself.

    Attributes:
        tokenizer: has a `response_template`.
        prefix: what the template writes before a turn, such as `<|im_start|>assistant` and a line end.
    """

    tokenizer: ReadsResponses
    prefix: str = ""
    name: str = "tokenizer"

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> ParsedTurn:
        """Return what a turn says and which tools it calls; a thought stands before it, in `<think>` tags."""
        schemas = [tool.schema for tool in tools]
        try:
            message = self.tokenizer.parse_response(text, prefix=self.prefix, tools=schemas)
            return _as_turn(message)
        # A parser of someone else's, over text that a model drew: whatever it raises means that it cannot read it.
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            return ParsedTurn(content=text, error=f"a tool call could not be read: {type(error).__name__}: {why}")

    def render(self, calls: Sequence[ToolCall]) -> str:
        """Refuse: such a description can only be read.

        Raises:
            ValueError: always.
        """
        raise ValueError("a tokenizer's response template reads calls and cannot write them; use its chat template")


def describes_answers(tokenizer: object) -> bool:
    """Tell whether a tokenizer has a description of its answers."""
    return getattr(tokenizer, "response_template", None) is not None and hasattr(tokenizer, "parse_response")


def _as_turn(message: Mapping[str, Any]) -> ParsedTurn:
    thought = message.get("reasoning_content") or message.get("thinking") or ""
    content = message.get("content") or ""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return ParsedTurn(
        content=f"<think>\n{thought}\n</think>\n\n{content}" if thought else content,
        calls=tuple(make_call(each["name"], each.get("arguments", {})) for each in functions),
    )
