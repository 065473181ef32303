"""Conversations to imitate: what others wrote as the policy's turns, in the chat template's own words.

A turn is encoded as the template writes it behind the prompt that it stands behind, its end included. Turns make one
sample as long as the template keeps what was said before; where it rewrites that, the next turn begins another sample.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klimb.experience import Message, Sample, ToolCall, Turn
from klimb.experience.importing.cells import messages
from klimb.experience.samples import POLICY_ROLE
from klimb.policies import Policy
from klimb.policies.tokenizing import encode_turns


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A conversation whose turns of the assistant are to be imitated.

    Attributes:
        messages: all of it; `tool_calls` in OpenAI's form, with an object of arguments.
        tools: schemas of the tools that are offered.

    Raises:
        ValueError: it does not begin with somebody else's message, or the assistant has no turn in it, or an empty one.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        roles = [message["role"] for message in self.messages]
        if POLICY_ROLE not in roles or roles[0] == POLICY_ROLE:
            raise ValueError(
                "a conversation to imitate begins with a user's or system message and has a turn of the assistant, got "
                f"roles {', '.join(roles) or 'none'}"
            )
        for message in self.messages:
            if message["role"] == POLICY_ROLE and not (message["content"] or message.get("tool_calls")):
                raise ValueError("a turn of the assistant is empty; there is nothing to imitate")

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What stands before the first turn that is imitated."""
        first = next(place for place, message in enumerate(self.messages) if message["role"] == POLICY_ROLE)
        return self.messages[:first]


def read_demonstration(row: Mapping[str, Any], place: str) -> Demonstration:
    """Return the conversation of a row with `messages`, and `tools` if there are any.

    Raises:
        ValueError: naming the place and what is wrong.
    """
    tools = row.get("tools") or ()
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError(f"{place}: tools must be a list of schemas, as OpenAI's are")
    try:
        said = messages(row.get("messages"), what="the conversation")
        return Demonstration(messages=said, tools=tuple(tools))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def demonstration_as_samples(policy: Policy, shown: Demonstration, *, name: str) -> tuple[Sample, ...]:
    """Return the conversation as samples of an unknown behaviour policy: one, unless the template rewrites histories.

    Raises:
        ValueError: the template refuses the conversation, or does not write a turn behind the prompt that it answers.
    """
    num_before = len(shown.prompt)
    behind = shown.messages[num_before:]
    return encode_turns(
        policy,
        Sample(
            sample_id=name,
            group_id=name,
            prompt=shown.prompt,
            prompt_ids=(),
            response="\n\n".join(each["content"] for each in behind if each["role"] == POLICY_ROLE),
            response_ids=(),
            finish_reason="stop",
            source="log",
            turns=tuple(map(_as_turn, behind)),
            tools=json.dumps(shown.tools, ensure_ascii=False) if shown.tools else "",
        ),
    )


def _as_turn(message: Message) -> Turn:
    is_drawn = message["role"] == POLICY_ROLE
    return Turn(
        role=message["role"],
        text=message["content"],
        num_tokens=0,
        finish_reason="stop" if is_drawn else "unknown",
        calls=tuple(map(_as_call, message.get("tool_calls", ()))),
        name=message.get("name", ""),
    )


def _as_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(name=function["name"], arguments=json.dumps(function["arguments"], ensure_ascii=False))


def why_not_shown(policy: Policy, shown: Demonstration) -> str:
    """Return why the policy cannot imitate the conversation; empty where it can."""
    try:
        samples = demonstration_as_samples(policy, shown, name="demonstration")
    except ValueError as error:
        return str(error)
    longest = max(len(sample.prompt_ids) + len(sample.response_ids) for sample in samples)
    room = policy.max_positions
    if room is not None and longest > room:
        return f"the conversation has {longest} tokens, and the model {room} positions"
    return ""
