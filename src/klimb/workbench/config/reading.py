"""From a TOML file and `--set` overrides to a `RunConfig`, and back to JSON."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from klimb.errors import ConfigError
from klimb.experience.atomic import replace_atomically
from klimb.workbench.config.errors import config_error, nearest_keys
from klimb.workbench.config.fields import as_declared, known_fields
from klimb.workbench.config.layers import lay_over, layer_of
from klimb.workbench.config.run import RunConfig

LARGEST_FILE_BYTES = 1_000_000


UNSAID = "default"
"""The bare word that takes a key away."""


_BARE_WORD = re.compile(r"^[A-Za-z_./~][^\s\"'\[\]{}=,]*$")


_KEY = re.compile(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")


def read_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Return the run that a TOML (or the resolved JSON) file describes, with `key=value` overrides on top.

    Raises:
        ConfigError: the file can't be read or parsed, or settings are wrong; all of them are named.
    """
    tables = with_overrides(read_tables(path), overrides, is_resolved=is_resolved(path))
    return build_config(tables, source=str(path))


def is_resolved(path: Path) -> bool:
    """Return True if the file is one that a run has written, every default filled in."""
    return path.suffix == ".json"


def build_config(tables: Mapping[str, Any], overrides: Iterable[str] = (), *, source: str) -> RunConfig:
    """Return the run that these tables describe; `source` names them in an error."""
    settings = with_overrides(tables, overrides)
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise config_error(error, source=source) from None


_DATA_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".xlsx", ".gz", ".zst")
"""Of files that hold rows and no settings."""


def _check_is_no_data(path: Path) -> None:
    if path.suffix.lower() in _DATA_ENDINGS and path.is_file():
        raise ConfigError(f"{path} holds rows, and a run file is TOML: klimb start {path} makes one of them")


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML or JSON file, unchecked."""
    _check_is_no_data(path)
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


def with_overrides(tables: Mapping[str, Any], overrides: Iterable[str], *, is_resolved: bool = False) -> dict[str, Any]:
    """Return a copy of the tables with each `key=value` put in; values are TOML, a bare word is a text.

    The bare word `default` takes away what the tables say of the key.

    Args:
        tables: as `read_tables` gives them.
        overrides: in any order.
        is_resolved: the tables are those of a run that has filled in every default.

    Raises:
        ConfigError: an override isn't `key=value`, its value isn't TOML, two of them contradict each other, or the
            tables hold what does not fit them.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        key, value = _key_and_value(override)
        if key in values and repr(values[key]) != repr(value):
            raise ConfigError(f"--set gives {key} twice: {_as_given(values[key])} and {_as_given(value)}; say one")
        values[key] = value
    return lay_over(tables, layer_of(values), is_resolved=is_resolved)


def _key_and_value(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    key = key.strip()
    if not equals or not _KEY.match(key):
        near = "=... or ".join(nearest_keys(key))
        hint = f"; did you mean {near}=...?" if near else ""
        raise ConfigError(f"--set takes key=value such as objective.beta=1e-3, got {override!r}{hint}")
    if value.strip() != UNSAID:
        return key, _toml_value(key, value.strip())
    if as_declared(key) not in {facts.path for facts in known_fields()}:
        near = " or ".join(nearest_keys(key))
        raise ConfigError(f"--set {override}: unknown key{f'; did you mean {near}?' if near else ''}")
    return key, None


def _as_given(value: Any) -> str:
    return UNSAID if value is None else repr(value)


def save_config(path: Path, config: RunConfig) -> None:
    """Write the resolved configuration, every default filled in, as JSON that `read_config` reads back."""
    with replace_atomically(path) as aside:
        aside.write_text(json.dumps(resolved_tables(config), indent=2) + "\n", encoding="utf-8")


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
