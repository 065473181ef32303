"""What each key of a configuration may be, in words, read from the declarations themselves."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from klimb.declarations import OWN_KIND
from klimb.workbench.config.run import RunConfig

Schema = Mapping[str, Any]


TABLE = "a table"
"""What a section takes."""


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """One key: where it is, what it may be, what it means.

    Attributes:
        path: dotted, e.g. `objective.clip.low`; `*` stands for a name of the user's own.
        kinds: the kinds (and the loss) of the sections on the way, e.g. `("dual",)`; empty outside of unions.
        allowed: the values it takes, in words.
        meaning: the field's docstring.
        default: as TOML; empty where there is none.
    """

    path: str
    kinds: tuple[str, ...]
    allowed: str
    meaning: str
    default: str = ""


@cache
def known_fields(model: type[BaseModel] = RunConfig) -> tuple[FieldFacts, ...]:
    """Every key that a configuration of this class can have, sections included."""
    schema = model.model_json_schema()
    return tuple(_walk(schema, schema.get("$defs", {}), path="", kinds=()))


def _walk(schema: Schema, definitions: Schema, *, path: str, kinds: tuple[str, ...]) -> Iterator[FieldFacts]:
    for name, field in sorted(
        schema.get("properties", {}).items(), key=lambda item: item[0] not in ("kind", "recipe", "loss")
    ):
        here = f"{path}.{name}" if path else name
        tables = list(_tables(field, definitions))
        # Where a field's docstring is word for word that of its section, pydantic leaves it to the section.
        meaning = str(field.get("description") or next((table.get("description", "") for _, table in tables), ""))
        allowed = TABLE if tables else in_words(field)
        default = "" if tables or "const" in field else _default(field)
        yield FieldFacts(path=here, kinds=kinds, allowed=allowed, meaning=" ".join(meaning.split()), default=default)
        if "propertyNames" in field:
            names = in_words(field["propertyNames"])
            inner = [table for option in _named_tables(field) for _, table in _tables(option, definitions)]
            what = f"{TABLE}, its name of {names}" if inner else f"a name: {names}"
            yield FieldFacts(path=f"{here}.*", kinds=kinds, allowed=what, meaning=meaning)
            for table in inner:
                yield from _walk(table, definitions, path=f"{here}.*", kinds=kinds)
        for kind, table in tables:
            yield from _walk(table, definitions, path=here, kinds=(*kinds, kind) if kind else kinds)


def _named_tables(field: Schema) -> Iterator[Schema]:
    """Return what may stand under a name of the user's own."""
    yield from field.get("patternProperties", {}).values()
    if isinstance(field.get("additionalProperties"), Mapping):
        yield field["additionalProperties"]


def as_declared(path: str, model: type[BaseModel] = RunConfig) -> str:
    """Return the key with `*` in the place of names of the user's own.

    >>> as_declared("rewards.style.weight"), as_declared("objective.beta")
    ('rewards.*.weight', 'objective.beta')
    """
    declared = {facts.path for facts in known_fields(model)}
    built: list[str] = []
    for part in path.split("."):
        is_own_name = ".".join([*built, part]) not in declared and ".".join([*built, "*"]) in declared
        built.append("*" if is_own_name else part)
    return ".".join(built)


def _default(field: Schema) -> str:
    """Return the default as TOML; where it is None, the word that stands for None in a file, if there is one."""
    if "default" in field and field["default"] is None:
        words = [str(option["const"]) for option in field.get("anyOf", ()) if "const" in option]
        return _as_toml(words[0]) if words else ""
    return _as_toml(field.get("default"))


def _as_toml(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return f"{value:g}" if isinstance(value, float) and value < 0.01 else json.dumps(value, ensure_ascii=False)


def _tables(field: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Return the sections a field may hold, each with its kind (empty when there is only one)."""
    for option in (field, *field.get("oneOf", ()), *field.get("anyOf", ()), *field.get("allOf", ())):
        table = definitions.get(str(option.get("$ref", "")).removeprefix("#/$defs/"))
        if table is not None and "properties" in table:
            yield _kind_of(table), table


def _kind_of(table: Schema) -> str:
    """Return the kind (or the loss) that a table must have to be this one; empty where there is one kind only."""
    told_by = next((table["properties"][key] for key in ("kind", "loss") if key in table["properties"]), {})
    return OWN_KIND if told_by.get("allowed") == repr(OWN_KIND) else str(told_by.get("const", ""))


def in_words(field: Schema) -> str:
    """Return the values that a JSON schema allows, e.g. `a number >= 0 and <= 1`."""
    if "allowed" in field:
        return str(field["allowed"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(in_words(option) for option in field["anyOf"]))
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return "one of " + ", ".join(repr(value) for value in values) if len(values) > 1 else repr(values[0])
    noun = _NOUNS.get(str(field.get("type", "")), "a value")
    return noun + _limits(field) + _shape(field)


_NOUNS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "absent",
}


def _limits(field: Schema) -> str:
    names = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
    limits = [f"{sign} {_number(field[name])}" for name, sign in names if name in field]
    return f" {' and '.join(limits)}" if limits else ""


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:g}"


def _shape(field: Schema) -> str:
    if "pattern" in field:
        return f" matching {field['pattern']}"
    return f" of {field.get('minLength', 0)} to {field['maxLength']} characters" if "maxLength" in field else ""
