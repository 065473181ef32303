"""Argilla's datasets as records, a record a row: flattened as for `datasets`, or those of Argilla 1.x."""

from collections.abc import Mapping, Sequence

from klimb.experience.feedback import Feedback
from klimb.experience.importing.calls import unpacked
from klimb.experience.importing.cells import first_of, from_json_cell, listed, mapping, name_of
from klimb.experience.importing.fields import exchange_in
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.ratings import Given, pairs_of, with_ratings
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row, RowError

SUBMITTED = "submitted"
"""The status of a response that counts; a draft is none yet, and a discarded one says nothing."""


_RESPONSES = ".responses"


def read_argilla(row: Row, rules: ImportRules) -> Sequence[ParsedRow | Feedback]:
    """Return the answer of a record, and a rating of it for each response that somebody submitted.

    Each question rates a thing of its own: `QUESTION.responses` with `QUESTION.responses.users` and
    `QUESTION.responses.status`, lists of one length; of Argilla 1.x the question itself, a list of `{user_id, value,
    status}`. Suggestions are no responses. What was asked and what was said are fields under their usual names.

    Source: Argilla 2.8's documentation, "Importing and exporting datasets and records", and `records/_io/_generic.py`
    and `records/_resource.py` (`to_list`, `to_datasets`); of 1.29, `FeedbackDataset.format_as("datasets")`.
    """
    values = row.values
    asked, said = exchange_in(mapping(values.get("fields")) or values, row, rules, what="the record")
    metadata = mapping(unpacked(values.get("metadata")))
    found = ParsedRow(
        prompt=asked,
        response=said.text,
        turns=said.turns,
        row_id=name_of(first_of(values, "id", "external_id", "_server_id")),
        model=name_of(first_of(values, "model", "model_id") or first_of(metadata, "model", "model_id")),
        metadata={name: value for name, value in metadata.items() if isinstance(value, str)},
    )
    return with_ratings(found, _given(row), row, rules, value_of=_value_of)


def ratings_in(row: Row) -> list[tuple[str, object]]:
    """Return what is rated in a record, and each rating as it stands there."""
    return pairs_of(_given(row))


def _given(row: Row) -> list[Given]:
    """Return what was submitted.

    Raises:
        RowError: responses that do not say whether they were.
    """
    return [
        Given(name=name, value=answer.get("value"), entry={"question": name, **answer}, user=_user(answer))
        for name, answers in _answers_of(row).items()
        for answer in answers
        if _status(answer, name) == SUBMITTED
    ]


def _user(answer: Mapping[str, object]) -> str:
    return name_of(answer.get("user_id"))


def _status(answer: Mapping[str, object], name: str) -> str:
    status = name_of(answer.get("status")).lower()
    if not status:
        raise RowError(
            "responses that do not say whether they were submitted",
            f"of the question {name!r}; export the records flattened: records.to_list(flatten=True)",
        )
    return status


def _answers_of(row: Row) -> Mapping[str, Sequence[Mapping[str, object]]]:
    """Return by question what was answered, in each of the forms."""
    values = row.values
    found = {name: _objects(answers) for name, answers in mapping(values.get("responses")).items()}
    for name in mapping(unpacked(row.raw)):
        if name.endswith(_RESPONSES):
            found[name.removesuffix(_RESPONSES)] = _zipped(values, name, row)
    older = [name for name, value in mapping(unpacked(row.raw)).items() if _are_older(value)]
    return found | {name: _objects(from_json_cell(values[name], row)) for name in older if name in values}


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return [mapping(each) for each in listed(value) or ()]


def _zipped(values: Mapping[str, object], name: str, row: Row) -> Sequence[Mapping[str, object]]:
    answers = listed(from_json_cell(values.get(name), row)) or ()
    users = listed(from_json_cell(values.get(f"{name}.users"), row)) or [None] * len(answers)
    status = listed(from_json_cell(values.get(f"{name}.status"), row)) or [None] * len(answers)
    if not len(answers) == len(users) == len(status):
        raise RowError("responses of another number than their users", f"of {name!r}: {len(answers)} and {len(users)}")
    return [
        {"value": value, "user_id": user, "status": each}
        for value, user, each in zip(answers, users, status, strict=True)
    ]


def _are_older(value: object) -> bool:
    """Whether a column is a question of Argilla 1.x with its responses."""
    entries = listed(unpacked(value))
    return bool(entries) and {"user_id", "value", "status"} <= set(mapping(entries[0]))


def _value_of(value: object, rules: ImportRules, row: Row) -> float | None:
    """Return the value of a rating; which numbers could be given is not in the export."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not (rules.scale or rules.value_map):
        raise RowError("a rating without a scale", f"got {value}; state the scale: --scale 1 5")
    return rating(value, rules, row)


def _looks_alike(values: Mapping[str, object]) -> bool:
    is_flat = any(str(name).endswith(_RESPONSES) and f"{name}.users" in values for name in values)
    is_nested = all(name in values for name in ("fields", "responses", "suggestions"))
    return is_flat or is_nested or any(_are_older(values[name]) for name in values)


IMPORTER = Importer(
    name="argilla",
    read=read_argilla,
    summary="Argilla's records, with what people answered",
    looks_alike=_looks_alike,
    rank=9,
    because="it has questions with their responses",
    rating_in=ratings_in,
)
