"""JSON schemas of Python functions, from the types of a signature and a Google-style docstring.

They are those of `transformers.utils.get_json_schema`, whose module needs seconds and torch to import: a chat template
is given the same text by either, and tests hold the two against each other.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Schema = dict[str, Any]


SCALARS: Mapping[type, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
"""What Python's scalars are called in a schema."""


PLAIN: Mapping[type, str] = {**SCALARS, list: "array", tuple: "array", dict: "object"}


MEDIA: Mapping[tuple[str, str], str] = {("PIL.Image", "Image"): "image", ("torch", "Tensor"): "audio"}
"""Types that are known by where they are declared, so that neither library is imported."""


TYPES_ARE = "int, float, str, bool, None, list, dict, tuple, Literal, an Enum, or a union of these"


DESCRIPTION = re.compile(r"^(.*?)[\n\s]*(Args:|Returns:|Raises:|\Z)", re.DOTALL)
ARGUMENTS = re.compile(r"\n\s*Args:\n(.*?)[\n\s]*(Returns:|Raises:|\Z)", re.DOTALL)
ARGUMENT = re.compile(r"(?:^|\n)([ \t]*)(\w+):\s*(.*?)\s*(?=\n(?!\1[ \t])[ \t]*\w+:|\Z)", re.DOTALL)
RETURNS = re.compile(r"\n\s*Returns:\n\s*(.*?)[\n\s]*(Raises:|\Z)", re.DOTALL)
CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Docstring:
    """What a Google-style docstring says: of the function, of each argument, and of what is returned."""

    description: str
    arguments: Mapping[str, str]
    returns: str | None


def describe_function(function: Callable[..., object], name: str) -> tuple[str, Schema, Schema | None]:
    """Return a function's description, the schema of its parameters, and that of what it returns, if it says so.

    Raises:
        ValueError: it has no docstring, a parameter without a type or a description, or a type that is none of JSON's.

    Source: transformers.utils.chat_template_utils.get_json_schema, version 5.23.
    """
    docstring = inspect.getdoc(function)
    if not docstring:
        raise ValueError(f"tool {name}: it has no docstring; the model knows a tool by what its docstring says")
    said = read_docstring(docstring.strip())
    parameters, returned = _schema_of_signature(function, name)
    for parameter, schema in parameters["properties"].items():
        if parameter not in said.arguments:
            raise ValueError(
                f"tool {name}: the docstring does not describe {parameter!r}; "
                f"add a line `{parameter}: what it is` below `Args:`"
            )
        _describe(schema, said.arguments[parameter], f"tool {name}: the description of {parameter!r}")
    if returned is not None and said.returns is not None:
        returned["description"] = said.returns
    return said.description, parameters, returned


def read_docstring(text: str) -> Docstring:
    """Return the parts of a Google-style docstring."""
    description, arguments, returns = DESCRIPTION.search(text), ARGUMENTS.search(text), RETURNS.search(text)
    lines = [line for line in arguments[1].split("\n") if line.strip()] if arguments else []
    return Docstring(
        description=description[1].strip() if description else "",
        arguments={
            found[2]: re.sub(r"\s*\n+\s*", " ", found[3].strip()) for found in ARGUMENT.finditer("\n".join(lines))
        },
        returns=returns[1].strip() if returns else None,
    )


def _describe(schema: Schema, description: str, where: str) -> None:
    """Put the description into the schema, and the choices at its end, `(choices: ["a", "b"])`, as its values."""
    choices = CHOICES.search(description)
    if choices:
        try:
            values = [each.strip() if isinstance(each, str) else each for each in json.loads(choices[1])]
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{where} ends with choices that are no JSON list: {choices[0].strip()}; write (choices: ["a", "b"])'
            ) from error
        schema["enum"] = values
        description = description[: choices.start()].strip()
    schema["description"] = description


def _schema_of_signature(function: Callable[..., object], name: str) -> tuple[Schema, Schema | None]:
    """Return the schemas of the parameters and of the returned value, without descriptions."""
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ValueError(
            f"tool {name}: a type is written that cannot be found at the top of its module: {error}"
        ) from error
    parameters = dict(inspect.signature(function).parameters)
    first = next(iter(parameters), None)
    if first in ("self", "cls") and parameters[first].annotation is inspect.Parameter.empty:
        del parameters[first]
    for parameter in parameters.values():
        if parameter.annotation is inspect.Parameter.empty:
            raise ValueError(f"tool {name}: parameter {parameter.name!r} has no type; write `{parameter.name}: str`")
    properties = {
        each: schema_of_type(hint, f"tool {name}: parameter {each!r}")
        for each, hint in hints.items()
        if each != "return" and each in parameters
    }
    schema: Schema = {"type": "object", "properties": properties}
    required = [each.name for each in parameters.values() if each.default is inspect.Parameter.empty]
    if required:
        schema["required"] = required
    return schema, _schema_of_return(hints, name)


def _schema_of_return(hints: Mapping[str, object], name: str) -> Schema | None:
    """Return the schema of what is returned; None where it has none, which is no error: no model writes it."""
    try:
        return schema_of_type(hints["return"], f"tool {name}: what it returns") if "return" in hints else None
    except ValueError:
        return None


def schema_of_type(hint: Any, where: str) -> Schema:
    """Return the JSON schema of a type; `where` begins an error's message.

    Raises:
        ValueError: JSON has no such type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return _schema_of_plain(hint, where)
    if origin in (Union, UnionType):
        return _schema_of_union(arguments, where)
    if origin is Literal:
        return _schema_of_values(list(arguments), where)
    if origin is list:
        return {"type": "array", "items": schema_of_type(arguments[0], where)} if arguments else {"type": "array"}
    if origin is tuple:
        return _schema_of_tuple(arguments, where)
    if origin is dict:
        schema: Schema = {"type": "object"}
        return {**schema, "additionalProperties": schema_of_type(arguments[1], where)} if arguments else schema
    raise ValueError(f"{where} has the type {hint!r}; a model can write {TYPES_ARE}")


def _schema_of_plain(hint: Any, where: str) -> Schema:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _schema_of_values([member.value for member in hint], where)
    if hint is Any:
        return {}
    kind = PLAIN.get(hint) if isinstance(hint, type) else None
    kind = kind or MEDIA.get((getattr(hint, "__module__", ""), getattr(hint, "__name__", "")))
    if kind is None:
        raise ValueError(f"{where} has the type {hint!r}; a model can write {TYPES_ARE}")
    return {"type": kind}


def _schema_of_values(values: list[Any], where: str) -> Schema:
    """Return the schema of a choice between some scalars."""
    if not values or any(type(value) not in SCALARS for value in values):
        raise ValueError(f"{where} is a choice of {values}; expected one or more of int, float, str, bool or None")
    kinds = list(dict.fromkeys(SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _schema_of_union(arguments: tuple[Any, ...], where: str) -> Schema:
    members = [schema_of_type(each, where) for each in arguments if each is not type(None)]
    if len(members) == 1:
        schema = members[0]
    elif all(member.keys() == {"type"} and isinstance(member["type"], str) for member in members):
        kinds = sorted({member["type"] for member in members})
        schema: Schema = {"type": kinds[0] if len(kinds) == 1 else kinds}
    else:
        schema = {"anyOf": members}
    return {**schema, "nullable": True} if type(None) in arguments else schema


def _schema_of_tuple(arguments: tuple[Any, ...], where: str) -> Schema:
    if len(arguments) == 1 or ... in arguments:
        raise ValueError(f"{where} is a tuple of one element or of any number of them; write list[...]")
    if not arguments:
        return {"type": "array"}
    return {"type": "array", "prefixItems": [schema_of_type(each, where) for each in arguments]}
