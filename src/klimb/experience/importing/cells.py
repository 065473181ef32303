"""One cell of a row as text, number, messages or mapping. Every function raises RowError for what it is not."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from klimb.experience.importing.dates import (
    IN_FUTURE,
    OFF_ORDER,
    UNDATED,
    WITHOUT_ZONE,
    Moment,
    moment_of_date,
    moment_of_iso,
    moment_of_number,
    readings,
)
from klimb.experience.reading.records import Row, RowError, UnsettledError
from klimb.experience.reading.strict_json import DECODER
from klimb.experience.samples import Message

ROLES = ("system", "user", "assistant", "tool")


CALL_ROLES = ("function_call", "tool_call")
"""Roles of a message that is a call of the assistant and nothing else: its content is the call, as JSON."""


_OTHER_NAMES: Mapping[object, str] = {
    "developer": "system",
    "function": "tool",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "prompter": "user",
    "model": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    **dict.fromkeys(CALL_ROLES, "assistant"),
}
"""Roles of OpenAI's newer and older messages, of ShareGPT's and of other tools' -> what they are here."""


_SAID = frozenset({"content", "value", "tool_calls", "function_call"})
"""What a message says stands under one of these names."""


THOUGHT_PARTS = ("thinking", "reasoning", "redacted_thinking", "thought")
"""Types of parts of a message that are no words of it."""


_PYTHON_MESSAGES = re.compile(r"\s*\[?\s*\{\s*'(?:role|from|content|value)'\s*:")
"""How messages begin that Python wrote into a cell, and not JSON."""


_PYTHON_ROLE = re.compile(r"\[\s*\{[^{}]*'(?:role|from)'\s*:\s*'\w+'")


def first_of(values: Mapping[str, object], *names: str) -> object:
    """Return the first of these cells that is there and not null; None if there is none."""
    for name in names:
        if (value := values.get(name)) is not None:
            return value
    return None


_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
"""Types that are neither lists nor objects. Asking for these and for JSON's own two comes first in what is called many
times a row: `isinstance` of an abstract class costs more than all else that is done there."""


def mapping(value: object) -> Mapping[str, object]:
    """Return the value if it is an object, else an empty one."""
    kind = type(value)
    is_object = kind is dict or (kind is not list and kind not in _SCALARS and isinstance(value, Mapping))
    return cast(Mapping[str, object], value) if is_object else {}


def listed(value: object) -> Sequence[object] | None:
    """Return the value if it is a list, else None; a text is none."""
    kind = type(value)
    if kind is list:
        return cast(Sequence[object], value)
    if kind is dict or kind in _SCALARS:
        return None
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return cast(Sequence[object], value) if is_list else None


def from_json_cell(value: object, row: Row) -> object:
    """In CSV, the list or object that a cell's text is; text that is neither stays text."""
    if not (row.is_text and isinstance(value, str) and value.lstrip()[:1] in ("[", "{")):
        return value
    try:
        return cast(object, DECODER.decode(value))
    except (json.JSONDecodeError, RecursionError):
        return value


def chat_cell(value: object, row: Row) -> object:
    """Return the chat messages that a cell's text is; any other text stays text, JSON or not.

    In CSV there is no other way to write them. In JSON and Parquet a model may have written them: what holds questions
    and ends with an answer stays text there.

    Raises:
        RowError: messages that Python wrote and that cannot be read back, as those of an array.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    if row.is_text and _PYTHON_MESSAGES.match(value):
        return _from_python(value)
    found = as_json(value)
    return found if are_messages(found) and (row.is_text or _is_one_side(found)) else value


def _is_one_side(value: object) -> bool:
    """Tell a list of messages that is a prompt, which ends with a question, or an answer, in which nobody asks."""
    roles = [message_role(mapping(entry)) for entry in listed(value) or ()]
    return bool(roles) and (roles[-1] in ("user", "tool") or "user" not in roles[:-1])


def are_messages(value: object) -> bool:
    """Tell chat messages, or a single one, from whatever else JSON says: all say who speaks, and one is known."""
    if value is None or isinstance(value, str):
        return False
    entries = listed(value)
    entries = [value] if entries is None else entries
    if not all(_SAID & mapping(entry).keys() for entry in entries):
        return False
    roles = [_role_of(mapping(entry)) for entry in entries]
    names = [role.lower() for role in roles if isinstance(role, str)]
    return len(names) == len(roles) and any(name in ROLES or name in _OTHER_NAMES for name in names)


def _from_python(text: str) -> object:
    try:
        found: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        if _PYTHON_ROLE.match(text.lstrip()):
            advice = "write a cell with json.dumps, or a .jsonl file"
            raise RowError("messages that are no JSON", f"{text[:60]!r}; {advice}") from error
        return text
    return found if are_messages(found) else text


def _role_of(entry: Mapping[str, object]) -> object:
    """Return who says a message; ShareGPT has it in `from`."""
    return first_of(entry, "role", "from")


def message_role(entry: Mapping[str, object]) -> object:
    """Return who says a message, under our names; what is none of these stays."""
    role = _role_of(entry)
    if not isinstance(role, str):
        return role
    name = role.lower()
    return _OTHER_NAMES.get(name, name if name in ROLES else role)


def content_of(entry: Mapping[str, object]) -> object:
    """Return what a message says; ShareGPT has it in `value`."""
    return first_of(entry, "content") if "role" in entry or "value" not in entry else entry["value"]


def python_value(value: object) -> object:
    """Return a scalar of NumPy as Python's own; any other value stays."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value  # type: ignore[attr-defined]


_NAMES_OF_IDS = ("id", "_id", "$oid", "uuid", "name")


MOST_EXACT = 2.0**53
"""Beyond it a float stands for several whole numbers."""


def name_of(value: object) -> str:
    """Return an id or a name as text; empty for None. A number is written out, of an object its id.

    A column of whole numbers in which some are missing holds floats in many programs: 12.0 is 12, and NaN is none.
    Bytes that are no text, as those of a UUID, are written in hexadecimal digits.

    Raises:
        RowError: neither a text nor a whole number, or a float so large that two ids can be the same one.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, Mapping):
        inner = first_of(mapping(cast(object, value)), *_NAMES_OF_IDS)
        if inner is None:
            raise RowError("an id that is an object without an id", repr(mapping(cast(object, value)))[:80])
        return name_of(inner)
    value = python_value(value)
    if value != value:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and abs(value) > MOST_EXACT:
        raise RowError("an id that has lost digits", f"{value!r} was a whole number beyond 2**53; write it as text")
    is_whole = isinstance(value, int) or (isinstance(value, float | Decimal) and value % 1 == 0)
    if isinstance(value, UUID) or (is_whole and not isinstance(value, bool)):
        return str(value if isinstance(value, UUID) else int(cast(float, value)))
    raise RowError("an id that is neither text nor a whole number", repr(value)[:80])


def number(value: object, *, what: str, row: Row) -> float:
    """Return a finite float. True and False are 1 and 0; text is a number in CSV alone."""
    value = python_value(value)
    if isinstance(value, str):
        if not row.is_text:
            raise RowError(f"{what} is text", f"{value[:40]!r}; write a number, not a text")
        value = _number_in_text(value, what)
    if not isinstance(value, int | float | Decimal):
        raise RowError(f"{what} is not a number", f"got {type(value).__name__}")
    try:
        as_float = float(value)
    except OverflowError as error:
        raise RowError(f"{what} is not finite", "an integer beyond every float") from error
    if not math.isfinite(as_float):
        raise RowError(f"{what} is not finite", f"got {as_float}; leave it out where there is none")
    return as_float


def _number_in_text(text: str, what: str) -> float:
    truths = {"true": 1.0, "false": 0.0}
    try:
        return truths[text.strip().lower()] if text.strip().lower() in truths else float(text)
    except ValueError as error:
        raise RowError(f"{what} is not a number", f"got {text[:40]!r}") from error


def whole_number(value: object, *, what: str, row: Row) -> int:
    """Return an integer of 64 bits, which is what a store keeps; 3.0 is one."""
    as_float = number(value, what=what, row=row)
    if as_float != int(as_float):
        raise RowError(f"{what} is not a whole number", f"got {as_float}")
    # A float has 53 bits of its own, so an integer is not read out of one.
    whole = int(value) if isinstance(value, int) else int(as_float)
    if not -(2**63) <= whole < 2**63:
        raise RowError(f"{what} is beyond 64 bits", f"got {whole}"[:80])
    return whole


def token_ids(value: object, *, what: str) -> tuple[int, ...]:
    """Return a list of integers that are 0 or more, 3.0 among them; empty for None."""
    if value is None:
        return ()
    ids = listed(value)
    if ids is None:
        raise RowError(f"{what} are not a list", f"got {type(value).__name__}")
    whole = [int(each) if isinstance(each, float) and each % 1 == 0 else each for each in ids]
    for token_id in whole:
        if type(token_id) is not int or not 0 <= token_id < 2**63:
            shown = repr(token_id)[:60]
            raise RowError(f"{what} that are no token ids", f"got {shown}; expected whole numbers from 0")
    return tuple(cast(Sequence[int], whole))


def text_of(content: object, *, what: str) -> str:
    """Return the text of a message's content: a text, or a list of text parts. Parts that are thoughts are left out.

    Whoever reads an answer refuses those first: `conversations.check_thoughts`.
    """
    if isinstance(content, str):
        return content
    parts = listed(content)
    if parts is None:
        raise RowError(f"{what} is not text", f"got {type(content).__name__}")
    texts: list[str] = []
    for part in parts:
        if is_thought(mapping(part)):
            continue
        text = part if isinstance(part, str) else mapping(part).get("text")
        if not isinstance(text, str):
            kind = mapping(part).get("type", type(part).__name__)
            raise RowError(f"{what} holds something else than text", f"a part of type {kind!r}")
        texts.append(text)
    return "".join(texts)


def is_thought(part: Mapping[str, object]) -> bool:
    """Tell whether a part of a message is a thought; Gemini marks the text itself."""
    return part.get("type") in THOUGHT_PARTS or part.get("thought") is True


def messages(value: object, *, what: str) -> tuple[Message, ...]:
    """Chat messages; a plain text is one message of the user. A result names the tool whose call it answers."""
    if isinstance(value, str):
        return (Message(role="user", content=value),) if value else ()
    entries = listed(value)
    if entries is None:
        raise RowError(f"no {what}", f"expected text or chat messages, got {type(value).__name__}")
    calls = _Calls()
    found: list[Message] = []
    for entry in entries:
        given = mapping(entry)
        found.append(message(entry, what=what, tool=calls.answered_by(given)))
        calls.add(given, found[-1])
    return tuple(found)


@dataclass(slots=True)
class _Calls:
    """Calls so far: their tools by the ids, and those without an id that no result has answered."""

    names: dict[str | None, str] = field(default_factory=dict[str | None, str])
    waiting: list[str] = field(default_factory=list[str])

    def add(self, given: Mapping[str, object], spoken: Message) -> None:
        """Take in the calls of a message."""
        if "tool_calls" not in spoken:
            return
        logged = logged_calls(given)
        for number, call in enumerate(spoken["tool_calls"]):
            call_id = _id_of(logged[number].get("id")) if logged else None
            name = call["function"]["name"]
            if call_id is None:
                self.waiting.append(name)
            else:
                self.names[call_id] = name

    def answered_by(self, given: Mapping[str, object]) -> str:
        """Return the tool whose call a message answers: by its id, else the first that waits; empty for none."""
        call_id = _id_of(given.get("tool_call_id"))
        if call_id is not None or message_role(given) != "tool":
            return self.names.get(call_id, "")
        return self.waiting.pop(0) if self.waiting else ""


def _id_of(value: object) -> str | None:
    """Return the id of a call; None for none, and for what is no id."""
    return str(value) if isinstance(value, str | int) and value != "" else None


def message(value: object, *, what: str, tool: str = "") -> Message:
    """One chat message, with its tool calls; `tool` is the name of one that gives none itself.

    OpenAI's newer role `developer` is the system, its older `function` a tool; ShareGPT's `human` is the user and its
    `gpt` the assistant.
    """
    entry = mapping(value)
    if not entry:
        raise RowError(f"{what} is no chat message", f"got {value!r}"[:80] + "; write the text as it was drawn")
    role, content = message_role(entry), content_of(entry)
    if _role_of(entry) in CALL_ROLES:
        entry, content = {"tool_calls": _as_calls(content)}, None
    if role not in ROLES:
        raise RowError(f"{what} has a message of another role", f"got {role!r}; roles are {', '.join(ROLES)}")
    calls = tool_calls(entry, what=what)
    if calls and role != "assistant":
        raise RowError(f"{what} has a tool call of another than the assistant", f"of the role {role}")
    if content is None and not calls:
        content = entry.get("refusal")  # what OpenAI's models say in place of an answer
    found = Message(role=str(role), content="" if content is None and calls else text_of(content, what=what))
    if calls:
        found["tool_calls"] = calls
    if role == "tool" and (name := name_of(entry.get("name")) or tool):
        found["name"] = name
    return found


def _as_calls(content: object) -> Sequence[object]:
    """Return the calls of a message that is nothing else: one, or a list of them."""
    found = as_json(content)
    return listed(found) or [found]


def tool_calls(entry: Mapping[str, object], *, what: str) -> list[Mapping[str, Any]]:
    """Return the calls of a message in OpenAI's form, with an object of arguments, without their ids.

    An id ties a result to its call and means nothing else; templates that write ids make their own.

    Raises:
        RowError: a call without a name, or whose arguments are no JSON object.
    """
    return [_tool_call(call, what=what) for call in logged_calls(entry)]


def logged_calls(entry: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the calls of a message as they were logged; some logs have each as JSON text."""
    if "tool_calls" not in entry and "function_call" not in entry:
        return []
    calls = listed(entry.get("tool_calls")) or ()
    older = mapping(entry.get("function_call"))
    return [mapping(as_json(call)) for call in calls] or ([older] if older else [])


def _tool_call(call: Mapping[str, object], *, what: str) -> Mapping[str, Any]:
    function = mapping(call.get("function")) or call
    name, arguments = function.get("name"), as_json(function.get("arguments"))
    if not isinstance(name, str) or not name:
        raise RowError(f"{what} has a tool call without a name", f"it has {', '.join(function)[:80] or 'nothing'}")
    if arguments is None or arguments == "":
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise RowError(f"{what} has a tool call whose arguments are no JSON object", f"{name}: {arguments!r}"[:120])
    return {"type": "function", "function": {"name": name, "arguments": mapping(cast(object, arguments))}}


def unpacked(value: object) -> object:
    """Return the list or object that a text is, where a cell can be nothing else; text that is neither stays text."""
    return as_json(value) if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") else value


def as_json(value: object) -> object:
    """Return what a JSON text says; text that is none, and what is no text, stay."""
    if not isinstance(value, str):
        return value
    try:
        return cast(object, DECODER.decode(value))
    except (json.JSONDecodeError, RecursionError):
        return value


def tool_schemas(value: object, row: Row) -> str:
    """Return the schemas of the tools on offer as a JSON list in OpenAI's form; empty for none.

    A schema may stand by itself, without `{"type": "function", "function": …}` around it; the list may be JSON text.

    Raises:
        RowError: a tool without a name.
    """
    value = as_json(value) if isinstance(value, str) else from_json_cell(value, row)
    if value is None or value == "":
        return ""
    entries = listed(value)
    if entries is None:
        raise RowError("tools are not a list", f"got {type(value).__name__}; expected a list of schemas, as OpenAI's")
    schemas = [_tool_schema(mapping(entry)) for entry in entries]
    return json.dumps(schemas, ensure_ascii=False, default=str) if schemas else ""


def _tool_schema(entry: Mapping[str, object]) -> Mapping[str, object]:
    function = mapping(entry.get("function")) or {
        name: value for name, value in entry.items() if name not in ("type", "namespace") and value is not None
    }
    if not isinstance(function.get("name"), str):
        raise RowError("a tool without a name", f"it has {', '.join(entry)[:80] or 'nothing'}")
    return {"type": "function", "function": function}


def seconds(value: object, row: Row) -> float:
    """Return the seconds since the epoch of a date; 0 for none.

    A date that cannot be read, lies in the future or does not fit the order of the file's others is 0 too, and is
    remarked of the row: an undated response can be learned from.

    Raises:
        UnsettledError: a date of three numbers whose order only the whole column can say.
    """
    if value is None or value == "":
        return 0.0
    if isinstance(value, str):
        moment = moment_of_iso(value) or _moment_in_text(value, row)
    else:
        value = python_value(value)
        if value == 0 or value != value:  # NaN, and what pandas has for no date
            return 0.0
        moment = _moment_of(value)
        if moment is None:
            row.remark(UNDATED, repr(value)[:40])
    if moment is None:
        return 0.0
    if not 0 <= moment.seconds <= row.dates.latest:
        row.remark(IN_FUTURE if moment.seconds > 0 else UNDATED, str(value)[:40])
        return 0.0
    if not moment.has_zone:
        row.remark(WITHOUT_ZONE, str(value)[:40])
    return moment.seconds


def _moment_of(value: object) -> Moment | None:
    """Return the moment of a date, a number, or an object that MongoDB or Firestore exports."""
    if isinstance(value, date):
        return moment_of_date(value)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return moment_of_number(float(value)) if abs(value) < 1e30 else None
    entries = mapping(value)
    inner = first_of(entries, "$date", "$numberLong", "seconds", "_seconds")
    if isinstance(inner, str):
        return readings(inner).get("")
    return None if inner is None else _moment_of(inner)


def _moment_in_text(text: str, row: Row) -> Moment | None:
    found = readings(text)
    past = {order: moment for order, moment in found.items() if moment.seconds <= row.dates.latest}
    if not past:
        row.remark(IN_FUTURE if found else UNDATED, text[:40])
        return None
    orders = [order for order in past if order]
    if row.dates.order and orders:
        if row.dates.order not in past:
            row.remark(OFF_ORDER, text[:40])
        return past.get(row.dates.order)
    moments = set(past.values())
    if len(moments) > 1:
        raise UnsettledError("date", text)
    return moments.pop()
