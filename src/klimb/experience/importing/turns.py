"""What several kinds of rows write alike: a response as text or chat, a dialogue with its answer, group and user."""

from collections.abc import Mapping
from dataclasses import replace

from klimb.experience.importing.cells import first_of, mapping, message, messages, name_of, seconds
from klimb.experience.importing.found import Found
from klimb.experience.importing.rows import Row, RowError
from klimb.experience.importing.users import USER_NAMES
from klimb.experience.samples import FinishReason, Message

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
}


def response_text(value: object, *, what: str) -> str:
    """The text of a response: a text, or a chat of one message of the assistant."""
    if isinstance(value, str):
        return value
    turns = messages(value, what=what)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        roles = ", ".join(turn["role"] for turn in turns)
        raise RowError(f"{what} is not one message of the assistant", f"its messages are of: {roles or 'nobody'}")
    return turns[0]["content"]


def split_dialogue(value: object, *, what: str) -> tuple[tuple[Message, ...], str]:
    """The messages before the last one, and the last one's text, which must be the assistant's."""
    turns = messages(value, what=what)
    if not turns or turns[-1]["role"] != "assistant":
        raise RowError(f"{what} do not end with the assistant", "nothing is there to learn from")
    return turns[:-1], turns[-1]["content"]


def with_group_and_user(found: Found, row: Row) -> Found:
    """The same with the row's group, user and time, under the names that logs give them."""
    return replace(
        found,
        group=name_of(first_of(row.values, "group", "group_id")),
        user=user_of(row.values),
        created_at=seconds(first_of(row.values, "created_at", "created", "timestamp"), row),
    )


def user_of(values: Mapping[str, object]) -> str:
    """The user's id; empty if the row has none."""
    return name_of(first_of(values, *sorted(USER_NAMES)))


def finish_reason_of(value: object) -> FinishReason:
    """`stop`, `length`, or `unknown` for whatever else a server says."""
    value = mapping(value).get("type", value)  # SGLang: {"type": "stop", "matched": 2}
    return _FINISH_REASONS.get(value, "unknown") if isinstance(value, str) else "unknown"


def checked_message(value: object, *, what: str) -> str:
    """The text of a model's message.

    Raises:
        RowError: a tool call, or thoughts kept apart: then the text as it was drawn is not known.
    """
    entry = mapping(value)
    thoughts = entry.get("reasoning_content") or entry.get("reasoning")
    if thoughts:
        raise RowError("thoughts kept apart from the response", "log the text as it was drawn: no reasoning parser")
    return message({"role": "assistant", **entry}, what=what)["content"]
