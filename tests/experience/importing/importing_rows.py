"""Rows as logs write them, and one line from a row to what it becomes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from klimb.experience import Sample
from klimb.experience.feedback import Feedback
from klimb.experience.importing import ImportRules, Row, RowError, importer_named
from klimb.experience.importing.registry import anonymise, convert_row, rename_columns

QUESTION = [{"role": "user", "content": "2 + 2?"}]


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def as_row(values: Mapping[str, Any], *, is_text: bool = False) -> Row:
    return Row("rows.jsonl:1", values, json.dumps(values), is_text)


def made_of(
    kind: str, values: Mapping[str, Any], *, is_text: bool = False, **rules: Any
) -> Sequence[Sample | Feedback]:
    stated = ImportRules(**rules)
    return convert_row(
        rename_columns(anonymise(as_row(values, is_text=is_text), stated), stated),
        importer_named(kind).read,
        stated,
        kind=kind,
    )


def samples_of(kind: str, values: Mapping[str, Any], **rules: Any) -> list[Sample]:
    made = made_of(kind, values, **rules)
    assert all(isinstance(part, Sample) for part in made)
    return [part for part in made if isinstance(part, Sample)]


def sample_of(kind: str, values: Mapping[str, Any], **rules: Any) -> Sample:
    (sample,) = samples_of(kind, values, **rules)
    return sample


def reason_of(kind: str, values: Mapping[str, Any], **rules: Any) -> str:
    """Why the row is rejected; empty if it is not."""
    try:
        made_of(kind, values, **rules)
    except RowError as error:
        return error.reason
    return ""


def openai_row(*, request: Mapping[str, Any] = {}, choice: Mapping[str, Any] = {}, **outer: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "4!"}
    return {
        "request": {"messages": QUESTION, "temperature": 1, "top_p": 1, **request},
        "response": {
            "id": "chatcmpl-1",
            "model": "m-1",
            "created": 1_700_000_000,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        },
        **outer,
    }


def logged(*tokens: tuple[str, float]) -> dict[str, Any]:
    """A choice's log-probabilities of token strings."""
    content = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in tokens]
    return {"logprobs": {"content": content}}
