"""From a TOML file and `--set` overrides to a `RunConfig`, and back to JSON."""

import copy
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from klimb.errors import ConfigError
from klimb.workbench.config.errors import config_error, nearest_keys
from klimb.workbench.config.run import RunConfig

LARGEST_FILE_BYTES = 1_000_000


_BARE_WORD = re.compile(r"^[A-Za-z_./~][^\s\"'\[\]{}=,]*$")


_KEY = re.compile(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")


def read_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Return the run that a TOML (or the resolved JSON) file describes, with `key=value` overrides on top.

    Raises:
        ConfigError: the file can't be read or parsed, or settings are wrong; all of them are named.
    """
    return build_config(read_tables(path), overrides, source=str(path))


def build_config(tables: Mapping[str, Any], overrides: Iterable[str] = (), *, source: str) -> RunConfig:
    """Return the run that these tables describe; `source` names them in an error."""
    settings = with_overrides(tables, overrides)
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise config_error(error, source=source) from None


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML or JSON file, unchecked."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"can't read the configuration {path}: {error.strerror}; give a TOML file") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {LARGEST_FILE_BYTES} bytes: is it a configuration?")
    try:
        text = content.decode("utf-8-sig")
        tables = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid {path.suffix.lstrip('.').upper() or 'TOML'}: {error}") from None
    if not isinstance(tables, dict):
        raise ConfigError(f"{path} must hold tables, got a {type(tables).__name__}")
    return tables


def with_overrides(tables: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the tables with each `key=value` put in; values are TOML, a bare word is a text.

    Raises:
        ConfigError: an override isn't `key=value`, or its value isn't TOML.
    """
    changed = copy.deepcopy(dict(tables))
    for override in overrides:
        key, equals, value = override.partition("=")
        key = key.strip()
        if not equals or not _KEY.match(key):
            near = "=... or ".join(nearest_keys(key))
            hint = f"; did you mean {near}=...?" if near else ""
            raise ConfigError(f"--set takes key=value such as objective.beta=1e-3, got {override!r}{hint}")
        _put(changed, key, _toml_value(key, value.strip()))
    return changed


def save_config(path: Path, config: RunConfig) -> None:
    """Write the resolved configuration, every default filled in, as JSON that `read_config` reads back."""
    path.write_text(json.dumps(resolved_tables(config), indent=2) + "\n", encoding="utf-8")


def resolved_tables(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as tables of JSON, without the sections that it does not have."""
    # Pydantic's `exclude_none` looks at values, and a None that has a word in files must stay.
    return _without_absent(config.model_dump(mode="json"))


def _kind_first(item: tuple[str, Any]) -> bool:
    return item[0] != "kind"


def _without_absent(table: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in sorted(table.items(), key=_kind_first) if value is not None}
    return {key: _without_absent(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _toml_value(key: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if _BARE_WORD.match(text):
            return text
        raise ConfigError(f"--set {key}={text}: the value must be TOML, e.g. 1e-3, true, 'text' or [1, 2]") from None


def _put(tables: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    table: dict[str, Any] = tables
    for section in sections:
        inner: Any = table.setdefault(section, {})
        if isinstance(inner, str):
            inner = table[section] = {"kind": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {section} is {inner!r} and not a table")
        table = inner
    # A section of another kind starts afresh: the old kind's keys mean nothing to it.
    if leaf == "kind" and table.get("kind", value) != value:
        table.clear()
    table[leaf] = value
