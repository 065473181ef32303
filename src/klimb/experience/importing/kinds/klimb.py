"""Samples as `klimb experience export` writes them, JSON Lines or CSV: the same samples come back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, replace
from typing import Any, cast, get_args

from klimb.experience.importing.cells import from_json_cell, listed, mapping, number, token_ids, whole_number
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.log_probs import checked_log_mu
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import FinishReason, Message, Provenance, Sample, SamplingSettings, Source, ToolCall, Turn

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""An exported text that begins so, apostrophes aside, has one apostrophe more in CSV: a spreadsheet would run it."""


def read_klimb(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One sample; a column that an earlier klimb did not write has its default.

    Nothing of the file is taken for something else: ratings and settings that the user states are not read.
    """
    values = {field.name: _value(field, row) for field in fields(Sample)}
    _check_words(values)
    try:
        sample = Sample(**values)
    except (TypeError, ValueError) as error:
        raise RowError("no sample as klimb exports it", str(error)[:300]) from error
    if sample.log_mu is not None:
        sample = replace(sample, log_mu=checked_log_mu(sample.log_mu, sample.num_drawn))
    return [
        ParsedRow(
            prompt=sample.prompt,
            response=sample.response,
            reward=sample.reward,
            prompt_ids=sample.prompt_ids,
            policy_version=sample.policy_version,
            created_at=sample.created_at,
            sample=sample,
        )
    ]


def _value(field: Field[Any], row: Row) -> Any:
    value, read = row.values.get(field.name), READ.get(field.name, _text)
    if value is None or (row.is_text and value == ""):
        if field.default_factory is not MISSING:
            return field.default_factory()
        return "" if field.default is MISSING else field.default
    try:
        return read(from_json_cell(value, row) if read in FROM_JSON else value, row)
    except (KeyError, TypeError) as error:
        raise RowError(f"{field.name} is not as klimb exports it", str(error)[:300]) from error


def _text(value: object, row: Row) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    is_marked = row.is_text and value.startswith("'") and value.lstrip("'").startswith(FORMULA_STARTS)
    return value[1:] if is_marked else value


def _check_words(values: Mapping[str, Any]) -> None:
    for name, words in (("finish_reason", FinishReason), ("log_mu_provenance", Provenance), ("source", Source)):
        if values[name] not in get_args(words):
            raise RowError(
                f"{name} is no word of klimb's", f"got {values[name]!r}; expected {', '.join(get_args(words))}"
            )


def _number(value: object, row: Row) -> float:
    return number(value, what="a number", row=row)


def _whole_number(value: object, row: Row) -> int:
    return whole_number(value, what="policy_version", row=row)


def _ids(value: object, row: Row) -> tuple[int, ...]:
    return token_ids(value, what="token ids")


def _numbers(value: object, row: Row) -> tuple[float, ...]:
    return tuple(_number(each, row) for each in _list(value))


def _support(value: object, row: Row) -> tuple[tuple[int, ...], ...]:
    return tuple(token_ids(each, what="the sets of the support") for each in _list(value))


def _parts(value: object, row: Row) -> Mapping[str, float]:
    return {name: _number(part, row) for name, part in _table(value).items()}


def _metadata(value: object, row: Row) -> Mapping[str, str]:
    return {name: _plain(text) for name, text in _table(value).items()}


def _sampling(value: object, row: Row) -> SamplingSettings:
    table = dict(_table(value))
    try:
        return SamplingSettings(**cast(Any, {**table, "stop": tuple(map(_plain, _list(table.get("stop", ()))))}))
    except ValueError as error:
        raise RowError("settings of sampling that there cannot be", str(error)[:300]) from error


def _prompt(value: object, row: Row) -> tuple[Message, ...]:
    return tuple(_message(_table(each)) for each in _list(value))


def _message(table: Mapping[str, object]) -> Message:
    message = Message(role=_plain(table["role"]), content=_plain(table["content"]))
    if table.get("tool_calls") is not None:
        message["tool_calls"] = [_table(call) for call in _list(table["tool_calls"])]
    if table.get("name") is not None:
        message["name"] = _plain(table["name"])
    return message


def _turns(value: object, row: Row) -> tuple[Turn, ...]:
    return tuple(_turn(_table(each)) for each in _list(value))


def _turn(table: Mapping[str, object]) -> Turn:
    calls = tuple(
        ToolCall(**{name: _plain(text) for name, text in _table(call).items()}) for call in _list(table["calls"])
    )
    try:
        return Turn(**cast(Any, {**table, "calls": calls}))
    except ValueError as error:
        raise RowError("a turn that there cannot be", str(error)[:300]) from error


def _list(value: object) -> Sequence[object]:
    found = listed(value)
    if found is None:
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return found


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return mapping(cast(object, value))


def _plain(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {json.dumps(value, default=str)[:40]}")
    return value


READ: Mapping[str, Callable[[object, Row], Any]] = {
    "prompt": _prompt,
    "prompt_ids": _ids,
    "response_ids": _ids,
    "reward": _number,
    "reward_parts": _parts,
    "log_mu": _numbers,
    "log_ref": _numbers,
    "sampling": _sampling,
    "policy_version": _whole_number,
    "created_at": _number,
    "metadata": _metadata,
    "turns": _turns,
    "support": _support,
}
"""By field of a sample; the others are texts."""


FROM_JSON = (_prompt, _ids, _parts, _numbers, _sampling, _metadata, _turns, _support)
"""What reads a list or an object, which is JSON in a cell of CSV."""


IMPORTER = Importer(
    name="klimb",
    read=read_klimb,
    summary="samples that klimb exported: the same come back",
    looks_alike=has_columns("sample_id", "group_id", "response_ids", "log_mu_provenance", "policy_version"),
    rank=5,
    because="it has the columns that klimb exports",
)
