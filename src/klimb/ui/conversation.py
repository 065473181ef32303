"""A conversation for people: who said what, what was drawn and what was put in, calls of tools and what became of them.

Terminal, pages and loggers show these; the words are the same everywhere. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from klimb.experience.samples import Message, Sample, ToolCall, Turn
from klimb.findings.conversations import count_calls, is_conversation

DRAWN, PUT_IN = "drawn", "put in"
"""Whether the policy drew a turn, in a word beside the colour."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One turn, or one message of a prompt.

    Attributes:
        who: its role, with the tool's name.
        is_drawn: whether the policy drew it, so that it is learnt from.
        mark: the same in a word; empty for a message of the prompt.
        facts: tokens, seconds, reward, and how it ended.
        text: of the turn, as it is.
        calls: of tools, `look({"what": "it"})`.
        error: what went wrong; empty where nothing did.
    """

    who: str
    is_drawn: bool
    mark: str
    facts: tuple[str, ...]
    text: str
    calls: tuple[str, ...] = ()
    error: str = ""


def said_in(sample: Sample) -> tuple[Said, ...]:
    """Return the turns of the response in their order."""
    return tuple(map(_said, sample.conversation))


def asked_in(sample: Sample) -> tuple[Said, ...]:
    """Return the messages of the prompt in their order."""
    return tuple(
        Said(
            who=_who(message["role"], message.get("name", "")),
            is_drawn=False,
            mark="",
            facts=(),
            text=message["content"],
            calls=_calls_of(message),
        )
        for message in sample.prompt
    )


def as_chat(sample: Sample) -> str:
    """Return the response as text: of several turns each behind its role, what was put in said to be that."""
    if not sample.turns:
        return sample.response
    return "\n".join(f"{said.who} ({said.mark}): {said.text}" for said in said_in(sample))


def facts_of(sample: Sample) -> list[tuple[str, str]]:
    """Return what is known of a conversation besides its turns; nothing of a single answer."""
    if not is_conversation(sample):
        return []
    turns, calls = sample.conversation, count_calls(sample)
    num_drawn = sum(turn.is_drawn for turn in turns)
    failed = f", {calls.num_failed} of them failed" if calls.num_failed else ""
    return [
        ("turns", f"{num_drawn} {DRAWN}, {len(turns) - num_drawn} {PUT_IN}; {counted(calls.num_made, 'call')}{failed}"),
        ("tools", ", ".join(tool_names(sample))),
        ("episode", sample.episode),
    ]


def tool_names(sample: Sample) -> list[str]:
    """Return the names of the tools that were offered; of schemas that nobody can read, that there are some."""
    if not sample.tools:
        return []
    try:
        schemas: Any = json.loads(sample.tools)
    except (ValueError, RecursionError):
        return ["not readable"]
    return [_name_of(schema) for schema in schemas] if isinstance(schemas, list) else ["not readable"]


def counted(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _said(turn: Turn) -> Said:
    return Said(
        who=_who(turn.role, turn.name),
        is_drawn=turn.is_drawn,
        mark=DRAWN if turn.is_drawn else PUT_IN,
        facts=tuple(_facts(turn)),
        text=turn.text,
        calls=tuple(map(_call, turn.calls)),
        error=turn.error,
    )


def _facts(turn: Turn) -> list[str]:
    facts = [counted(turn.num_tokens, "token")] if turn.num_tokens else []
    if turn.seconds is not None:
        facts.append(f"{turn.seconds:.3g} s")
    if turn.reward is not None:
        facts.append(f"reward {turn.reward:g}")
    if turn.is_drawn and turn.finish_reason == "length":
        facts.append("cut off")
    return facts


def _who(role: str, name: str) -> str:
    return f"{role} {name}" if name else role


def _call(call: ToolCall) -> str:
    return f"{call.name}({call.arguments})"


def _calls_of(message: Message) -> tuple[str, ...]:
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls", ())
    return tuple(_call_of_message(call) for call in calls)


def _call_of_message(call: Mapping[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, Mapping):
        return json.dumps(dict(call), ensure_ascii=False, default=str)
    found = cast(Mapping[str, Any], function)
    return f"{found.get('name', '')}({json.dumps(found.get('arguments'), ensure_ascii=False, default=str)})"


def _name_of(schema: Any) -> str:
    function = cast(Mapping[str, Any], schema).get("function", schema) if isinstance(schema, Mapping) else None
    name = cast(Mapping[str, Any], function).get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else "not readable"
