"""Anthropic's messages, as a proxy logs them: content in blocks, calls and results among them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from klimb.experience.importing.cells import first_of, listed, mapping, name_of, text_of, unpacked
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.kinds.openai import read_openai
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Columns, Row, RowError

_FINISH_REASONS = {"end_turn": "stop", "tool_use": "stop", "refusal": "stop", "max_tokens": "length"}
"""A stop sequence cut the answer; it and all others are unknown."""


def read_anthropic(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response, read as OpenAI's after its form has been changed.

        request {system, messages, tools, …}, response {id, content, stop_reason}

    Blocks of text, `tool_use` and `tool_result` are read; thoughts and blocks of other types refuse the row.

    Source: Anthropic's API reference, "Messages".

    Raises:
        RowError: the request failed, or a part that cannot be read.
    """
    request, response = _parts(row.values)
    if response.get("type") == "error" or response.get("error"):
        raise RowError("the request failed", str(response.get("error"))[:200])
    prompt = _prompt(request)
    if prompt and prompt[-1].get("role") == "assistant":
        raise RowError("an answer that continues a message", "the end of its prompt is the beginning of its turn")
    asked: dict[str, object] = {**request, "messages": prompt, "tools": _tools(unpacked(request.get("tools")))}
    asked.pop("system", None)
    said = _messages({"role": "assistant", "content": response.get("content")}, what="response")[-1]
    reason = _FINISH_REASONS.get(name_of(response.get("stop_reason")))
    answer: dict[str, object] = {
        "id": response.get("id"),
        "model": response.get("model"),
        "choices": [{"index": 0, "message": said, "finish_reason": reason}],
    }
    cells = row.values.cells if isinstance(row.values, Columns) else row.values
    changed = Columns({**cells, "request": asked, "response": answer})
    found = read_openai(replace(row, values=changed), rules)
    if isinstance(row.values, Columns):
        row.values.read |= changed.read
        row.values.remarks |= changed.remarks
    return found


def _parts(values: Mapping[str, object]) -> tuple[Mapping[str, object], Mapping[str, object]]:
    request = mapping(unpacked(first_of(values, "request", "body")))
    response = mapping(unpacked(values.get("response")))
    return mapping(unpacked(request.get("body"))) or request, mapping(unpacked(response.get("body"))) or response


def _prompt(request: Mapping[str, object]) -> list[Mapping[str, object]]:
    system, found = request.get("system"), list[Mapping[str, object]]()
    if system:
        found.append({"role": "system", "content": text_of(system, what="system")})
    for entry in listed(unpacked(request.get("messages"))) or ():
        found += _messages(mapping(entry), what="prompt")
    return found


def _messages(entry: Mapping[str, object], *, what: str) -> list[Mapping[str, object]]:
    """Return a message in OpenAI's form; results of tools are messages of their own, before what the user says."""
    blocks = listed(entry.get("content"))
    if blocks is None:
        return [entry]
    results, calls, rest = list[Mapping[str, object]](), list[Mapping[str, object]](), list[object]()
    for block in blocks:
        part = mapping(block)
        if part.get("type") == "tool_result":
            text = text_of(part.get("content") or "", what=what)
            results.append({"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": text})
        elif part.get("type") == "tool_use":
            function = {"name": part.get("name"), "arguments": part.get("input")}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        else:
            rest.append(block)
    if rest or calls or not results:
        content = rest or (None if calls else "")
        results.append({**entry, "content": content, **({"tool_calls": calls} if calls else {})})
    return results


def _tools(value: object) -> object:
    """Return schemas in OpenAI's form; what is no list stays, and is refused where it is read."""
    entries = listed(value)
    return value if entries is None else [_tool(mapping(entry)) for entry in entries]


def _tool(tool: Mapping[str, object]) -> Mapping[str, object]:
    names = {"name": "name", "description": "description", "input_schema": "parameters"}
    return {"type": "function", "function": {theirs: tool[ours] for ours, theirs in names.items() if ours in tool}}


def _is_anthropics(values: Mapping[str, object]) -> bool:
    request, response = _parts(values)
    return "messages" in request and listed(response.get("content")) is not None and "stop_reason" in response


IMPORTER = Importer(
    name="anthropic",
    read=read_anthropic,
    summary="requests and responses of Anthropic's messages",
    looks_alike=_is_anthropics,
    rank=20,
    because="its response has blocks of content and a stop_reason",
)
