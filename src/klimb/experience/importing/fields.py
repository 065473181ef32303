"""The fields of a task that people annotate: which of them was asked and which was said."""

import re
from collections.abc import Mapping

from klimb.experience.importing.calls import unpacked
from klimb.experience.importing.cells import listed, mapping, messages
from klimb.experience.importing.conversations import Said, read_dialogue, read_response
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import Message

_NOT_THESE = re.compile(
    r"reference|expected|gold|truth|correct|ideal|model_(?:id|name)|score|rating|type|tokens|length|time|count|_id$|^id$"
)
"""In the names of fields that are about a prompt or a response, and are none."""


PROMPTS = ("prompt", "instruction", "question", "query", "input", "user_input", "user", "human", "q")


RESPONSES = (
    *("response", "completion", "answer", "output", "generation", "reply", "generated_text"),
    *("model_output", "model_response", "model_answer", "assistant", "a"),
)


CONVERSATIONS = ("messages", "conversation", "conversations", "chat", "dialogue", "dialog", "history", "chat_history")


_PARTS: Mapping[tuple[str, ...], re.Pattern[str]] = {
    PROMPTS: re.compile(r"prompt|question|instruction|query"),
    RESPONSES: re.compile(r"response|answer|completion|output|reply|generation"),
}
"""What a field is called that has none of the names: `user_prompt`, `llm_output`."""


_SYSTEMS = ("system", "system_prompt")


_READ_TOO = ("context", "contexts", "document", "documents", "passages", "retrieved_documents")
"""What a model mostly read as a part of its prompt; how it stood there, a task does not say."""


def exchange_in(
    fields: Mapping[str, object], row: Row, rules: ImportRules, *, what: str
) -> tuple[tuple[Message, ...], Said]:
    """Return what was asked and what was said: of a whole conversation as `read_dialogue` has it.

    Columns that the user maps to `prompt` and `response` come before the fields.

    Raises:
        RowError: one of them is not there, or several fields may be it.
    """
    response = _field(fields, "response", RESPONSES, row, what=what)
    conversation = _only(fields, CONVERSATIONS, what=what)
    if response is None and conversation is not None:
        return read_dialogue(conversation, what="the conversation", rules=rules)
    asked = prompt_in(fields, row, what=what)
    if response is None:
        raise _missing("response", RESPONSES, fields, what=what)
    return asked, read_response(_in_messages(response), what="response")


def prompt_in(fields: Mapping[str, object], row: Row, *, what: str) -> tuple[Message, ...]:
    """Return what was asked, behind the system's message and the conversation before it.

    Raises:
        RowError: it is not there, several fields may be it, or the model read documents beside it.
    """
    prompt = _field(fields, "prompt", PROMPTS, row, what=what)
    conversation, system = _only(fields, CONVERSATIONS, what=what), _only(fields, _SYSTEMS, what=what)
    if prompt is None and conversation is None:
        raise _missing("prompt", PROMPTS, fields, what=what)
    if beside := [name for name in _READ_TOO if fields.get(name)]:
        raise RowError("a prompt with documents beside it", f"how the model read {', '.join(beside)} is not known")
    return (
        *(messages([{"role": "system", "content": system}], what="system") if system else ()),
        *(messages(_in_messages(conversation), what="the conversation") if conversation is not None else ()),
        *(messages(_in_messages(prompt), what="prompt") if prompt is not None else ()),
    )


def pair_in(fields: Mapping[str, object], names: tuple[str, str]) -> tuple[Said, Said]:
    """Return the two answers that were compared, by the names of their fields.

    Raises:
        RowError: one of them is not among the fields.
    """
    missing = [name for name in names if fields.get(name) is None]
    if missing:
        there = ", ".join(fields)[:120]
        raise RowError(
            "a comparison of answers that are not there",
            f"no {', '.join(missing)}: call fields as tags; it has {there}",
        )
    first, second = (read_response(_in_messages(fields[name]), what=name) for name in names)
    return first, second


def _in_messages(value: object) -> object:
    """Return chat messages that a text is as JSON; other text is text, also where it is JSON."""
    entries = listed(unpacked(value))
    return entries if entries and all("role" in mapping(entry) for entry in entries) else value


def _field(fields: Mapping[str, object], ours: str, names: tuple[str, ...], row: Row, *, what: str) -> object:
    if fields is not row.values:  # what the user maps stands beside the fields
        mapped = row.values.get(ours)
        return mapped if mapped is not None else _only(fields, names, what=what)
    is_mapped = isinstance(row.values, Columns) and ours in row.values.names
    return row.values[ours] if is_mapped else _only(fields, names, what=what)


def _only(fields: Mapping[str, object], names: tuple[str, ...], *, what: str) -> object:
    found = [name for name in names if name in fields and fields[name] not in (None, "", [])]
    if not found and names in _PARTS:
        found = [str(name) for name in fields if _PARTS[names].search(name.lower()) and _may_be(fields, name)]
    if len(found) > 1:
        raise RowError(f"several fields of {what} that may be one", f"{', '.join(found)}; leave one of them")
    return fields[found[0]] if found else None


def _may_be(fields: Mapping[str, object], name: str) -> bool:
    is_about = _NOT_THESE.search(name.lower()) or name in (*_SYSTEMS, *_READ_TOO, *CONVERSATIONS) or "." in name
    return not is_about and isinstance(fields[name], str | list) and bool(fields[name])


def _missing(ours: str, names: tuple[str, ...], fields: Mapping[str, object], *, what: str) -> RowError:
    there = ", ".join(str(name) for name in fields)[:120] or "none"
    return RowError(f"no {ours}", f"{what}: fields are {there}; expected one of {', '.join(names)}")
