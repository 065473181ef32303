"""Tables as TOML text, with a remark behind a setting where there is something to say."""

import json
import re
from collections.abc import Mapping
from typing import Any

Tables = dict[str, Mapping[str, Any]]
"""Section -> key -> value; the section "" has the keys of the file itself and comes first."""
Remarks = dict[str, str]
"""`section.key` -> the comment behind it, in one line."""

_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+$")


def toml_text(tables: Tables, remarks: Remarks) -> str:
    """The sections in their order; an empty one is left out."""
    parts: list[str] = []
    for section, table in tables.items():
        if not table:
            continue
        head = [f"[{section}]"] if section else []
        lines = [
            f"{toml_key(key)} = {toml_value(value)}{_remark(remarks.get(f'{section}.{key}', ''))}"
            for key, value in table.items()
        ]
        parts.append("\n".join([*head, *lines]))
    return "\n\n".join(parts) + "\n"


def toml_key(key: str) -> str:
    """The key itself, quoted where TOML wants it."""
    return key if _BARE_KEY.match(key) else _text(key)


def toml_value(value: Any) -> str:
    """A text, number, truth value, list or table (in one line).

    >>> toml_value({"a b": [1, True, "x"]})
    '{ "a b" = [1, true, "x"] }'

    Raises:
        ValueError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return re.sub(r"e([+-])0(\d)$", r"e\1\2", repr(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_key(key)} = {toml_value(item)}' for key, item in value.items())} }}"
    raise ValueError(f"TOML has no {type(value).__name__}, got {value!r}; expected text, number, list or table")


def _remark(text: str) -> str:
    return f"  # {text}" if text else ""


def _text(value: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
