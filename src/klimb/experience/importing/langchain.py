"""LangChain's messages, in each of the forms they are written in, as OpenAI's."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import listed, mapping
from klimb.experience.reading.records import RowError

_ROLES: Mapping[str, str] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "user": "user",
    "assistant": "assistant",
}

_PARTS_OF_CALLS = ("tool_use", "tool_call", "function_call", "input_json_delta")
"""Parts of a content that say again what the calls beside it say."""


def openai_form(value: object) -> Mapping[str, object]:
    """Return a message in OpenAI's form; what is in none of LangChain's forms comes back as it is.

        ["human", "Hi"]
        {"type": "human", "content": "Hi"}
        {"type": "human", "data": {"content": "Hi"}}
        {"lc": 1, "type": "constructor", "id": [..., "HumanMessage"], "kwargs": {"content": "Hi"}}

    Source: langchain-core 1.x, `messages/utils.py`, `messages/base.py` and `load/serializable.py`.

    Raises:
        RowError: a call of the model's that LangChain itself could not read.
    """
    pair = listed(value)
    if pair is not None:
        role, content = pair if len(pair) == 2 else (None, None)
        return {"role": _ROLES.get(role, role) if isinstance(role, str) else None, "content": content}
    entry = mapping(value)
    if names := listed(entry.get("id")):
        entry = {"type": _type_of(str(names[-1])), **mapping(entry.get("kwargs"))}
    elif inner := mapping(entry.get("data")):
        entry = {**inner, "type": entry.get("type")}
    kind = entry.get("type")
    if (role := entry.get("role")) is not None:
        return {**entry, "role": _ROLES[role]} if role in ("human", "ai") else entry
    if not isinstance(kind, str):
        return entry
    return _as_openai({**entry, "role": _ROLES.get(_type_of(kind), kind)})


def openai_messages(value: object) -> object:
    """Return messages that LangChain wrote in OpenAI's form; anything else stays."""
    entries = listed(value)
    if not entries or any("role" in mapping(entry) or not _is_langchains(mapping(entry)) for entry in entries):
        return value
    return [openai_form(entry) for entry in entries]


def _is_langchains(entry: Mapping[str, object]) -> bool:
    return entry.get("type") == "constructor" or (
        entry.get("type") in _ROLES and ("content" in entry or "data" in entry)
    )


def _type_of(name: str) -> str:
    """Return `human` for HumanMessage, HumanMessageChunk and human."""
    return name.removesuffix("Chunk").removesuffix("Message").lower()


def _as_openai(entry: Mapping[str, object]) -> Mapping[str, object]:
    if entry.get("invalid_tool_calls"):
        raise RowError("a tool call that LangChain could not read", str(entry["invalid_tool_calls"])[:120])
    more = mapping(entry.get("additional_kwargs"))
    calls = [_call(mapping(call)) for call in listed(entry.get("tool_calls")) or listed(more.get("tool_calls")) or ()]
    form: dict[str, object] = {"role": entry["role"], "content": _content(entry.get("content"), has_calls=bool(calls))}
    if calls:
        form["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if entry.get(name) is not None:
            form[name] = entry[name]
    for name in ("reasoning_content", "reasoning", "function_call"):
        if more.get(name):
            form[name] = more[name]
    return form


def _call(call: Mapping[str, object]) -> Mapping[str, object]:
    """Return `{name, args, id}` as OpenAI's; what is OpenAI's already stays."""
    if "args" not in call:
        return call
    return {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call["args"]}}


def _content(content: object, *, has_calls: bool) -> object:
    parts = listed(content)
    if parts is None or not has_calls:
        return content
    return _without_calls(parts)


def _without_calls(parts: Sequence[object]) -> Sequence[object]:
    return [part for part in parts if mapping(part).get("type") not in _PARTS_OF_CALLS]
