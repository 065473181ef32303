"""Conversations to imitate: what others wrote as the policy's turns, in the chat template's own words.

A turn is encoded as the template writes it behind the prompt that it stands behind, its end included. Turns make one
sample as long as the template keeps what was said before; where it rewrites that, the next turn begins another sample.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klimb.experience import Message, Sample, ToolCall, Turn
from klimb.experience.samples import POLICY_ROLE
from klimb.policies import Policy
from klimb.policies.tokenizing import encode_turns

ROLES = ("system", "user", POLICY_ROLE, "tool")


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A conversation whose turns of the assistant are to be imitated.

    Attributes:
        messages: all of it; `tool_calls` in OpenAI's form, with an object of arguments.
        tools: schemas of the tools that are offered.

    Raises:
        ValueError: it does not begin with somebody else's message, or the assistant says nothing in it.
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
    messages, tools = row.get("messages"), row.get("tools") or ()
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"{place}: messages must be a list of chat messages, got {type(messages).__name__}")
    if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError(f"{place}: tools must be a list of schemas, as OpenAI's are")
    try:
        return Demonstration(messages=tuple(map(_read_message, messages)), tools=tuple(tools))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _read_message(value: object) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES:
        role = value.get("role") if isinstance(value, Mapping) else value
        raise ValueError(f"a message has the role {role!r}; roles are {', '.join(ROLES)}")
    content = value.get("content")
    if content is not None and not isinstance(content, str):
        raise ValueError(f"a message of {value['role']} has content of type {type(content).__name__}, expected text")
    message: Message = {"role": value["role"], "content": content or ""}
    if value.get("name"):
        message["name"] = str(value["name"])
    if value.get("tool_calls"):
        message["tool_calls"] = [_read_call(call) for call in value["tool_calls"]]
    if message["role"] == POLICY_ROLE and not (content or value.get("tool_calls")):
        raise ValueError("a turn of the assistant is empty; there is nothing to imitate")
    return message


def _read_call(value: object) -> Mapping[str, Any]:
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments", {}) if isinstance(function, Mapping) else None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise ValueError(f"the arguments of a call of {name!r} are no JSON: {error}") from error
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ValueError(
            'a call must be {"type": "function", "function": {"name": …, "arguments": {…}}}, '
            f"got {json.dumps(value, default=str)[:80]}"
        )
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


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
