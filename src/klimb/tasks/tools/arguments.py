"""Whether the arguments of a call are what its tool takes, said in one line that the policy reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from klimb.tasks.protocol import did_you_mean
from klimb.tasks.tools.tool import Tool

KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list, tuple),
    "object": (dict,),
}
"""A type that is not listed, such as `image`, is not checked."""


LONGEST_SHOWN = 60
"""Characters of a value that a message shows."""


MOST_REFERENCES = 30
"""Schemas that refer to each other deeper than this are not followed."""


def check_arguments(tool: Tool, arguments: object) -> str:
    """Return what is wrong with the arguments, in one line for the policy; nothing where all is well.

    Missing, unknown and wrongly typed arguments are found, in lists and objects too. Limits of numbers and lengths are
    left to the tool.
    """
    if not isinstance(arguments, Mapping):
        return f"{tool.name}: expected an object of arguments by name, got {_show(arguments)}"
    schema = {"type": "object", "properties": {}, **tool.parameters}
    closed = schema if "additionalProperties" in schema else {**schema, "additionalProperties": False}
    wrong = _check_object(closed, arguments, "", _Definitions(schema))
    return f"{tool.name}: {wrong}" if wrong else ""


class _Definitions:
    """The schemas that a schema refers to as `#/$defs/NAME`."""

    def __init__(self, root: Mapping[str, Any], depth: int = 0) -> None:
        self.root, self.depth = root, depth

    def find(self, reference: object) -> Mapping[str, Any] | None:
        """Return what `#/a/b` names; None where there is no such thing, or where schemas are nested too deeply."""
        if not isinstance(reference, str) or not reference.startswith("#/") or self.depth > MOST_REFERENCES:
            return None
        found: Any = self.root
        for key in reference[2:].split("/"):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else None

    def deeper(self) -> _Definitions:
        """Return the same, one reference further down."""
        return _Definitions(self.root, self.depth + 1)


def _check(schema: object, value: Any, where: str, definitions: _Definitions) -> str:
    """Return what is wrong with a value, which stands at `where`. No deeper than the schema goes."""
    if not isinstance(schema, Mapping) or not schema:
        return f"{where} is not allowed" if schema is False else ""
    if "$ref" in schema:
        return _check(definitions.find(schema["$ref"]), value, where, definitions.deeper())
    if value is None and schema.get("nullable"):
        return ""
    if "enum" in schema and not any(_is_same(value, each) for each in schema["enum"]):
        return f"{where} must be one of {json.dumps(schema['enum'], ensure_ascii=False)}, got {_show(value)}"
    if "const" in schema and not _is_same(value, schema["const"]):
        return f"{where} must be {_show(schema['const'])}, got {_show(value)}"
    kinds = _kinds_of(schema)
    if kinds and not any(_is_of_kind(value, kind) for kind in kinds):
        return f"{where} must be {_join(kinds)}, got {_kind_of(value)} {_show(value)}"
    return _check_members(schema, value, where, definitions)


def _check_members(schema: Mapping[str, Any], value: Any, where: str, definitions: _Definitions) -> str:
    for part in schema.get("allOf", ()):
        wrong = _check(part, value, where, definitions)
        if wrong:
            return wrong
    for name in ("anyOf", "oneOf"):
        found = [_check(part, value, where, definitions) for part in schema.get(name, ())]
        if found and all(found):
            return found[0] if len(found) == 1 else f"{where} is none of what is allowed: {'; or '.join(found)}"
    if isinstance(value, Mapping):
        return _check_object(schema, value, where, definitions)
    return _check_list(schema, value, where, definitions) if isinstance(value, list | tuple) else ""


def _check_object(schema: Mapping[str, Any], value: Mapping[str, Any], where: str, definitions: _Definitions) -> str:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    noun, place = ("key", f" in {where}") if where else ("argument", "")
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"missing {noun} {missing[0]!r}{place}{_describe_kinds(properties.get(missing[0]))}"
    for name, each in value.items():
        if name not in properties and others is False:
            takes = _join([repr(known) for known in properties], "and") if properties else "none"
            return f"unknown {noun} {name!r}{place}; it takes {takes}{did_you_mean(str(name), properties)}"
        wrong = _check(properties.get(name, others), each, f"{where}.{name}" if where else repr(name), definitions)
        if wrong:
            return wrong
    return ""


def _check_list(schema: Mapping[str, Any], value: Sequence[Any], where: str, definitions: _Definitions) -> str:
    first = schema.get("prefixItems", ())
    if first and len(value) != len(first):
        return f"{where} must have {len(first)} elements, got {len(value)}"
    for number, each in enumerate(value):
        expected = first[number] if number < len(first) else schema.get("items", {})
        wrong = _check(expected, each, f"{where}[{number}]", definitions)
        if wrong:
            return wrong
    return ""


def _describe_kinds(schema: object) -> str:
    kinds = _kinds_of(schema)
    return f" ({_join(kinds)})" if kinds else ""


def _kinds_of(schema: object) -> list[str]:
    kind = schema.get("type", []) if isinstance(schema, Mapping) else []
    return [kind] if isinstance(kind, str) else list(kind)


def _is_of_kind(value: object, kind: str) -> bool:
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    return kind not in KINDS or isinstance(value, KINDS[kind])


def _is_same(value: object, other: object) -> bool:
    """Tell whether two values are one in JSON, where 1 is not true."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _kind_of(value: object) -> str:
    kinds = [kind for kind in KINDS if _is_of_kind(value, kind)]
    return kinds[0] if kinds else type(value).__name__


def _join(names: Sequence[str], word: str = "or") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _show(value: object) -> str:
    """Return a value as JSON, in one line and short."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except RecursionError:
        text = "a value that is nested too deeply"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"
