"""KTO rows, TRL's "unpaired preference": prompt, completion, label."""

from collections.abc import Sequence

from klimb.experience.importing.cells import first_of, from_json_cell, messages, name_of, tool_schemas
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row


def read_kto(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response; a label that is null or missing is no rating.

    Source: TRL's documentation, "Dataset formats and types", unpaired preference.
    """
    values = row.values
    said = read_response(from_json_cell(values.get("completion"), row), what="completion")
    found = ParsedRow(
        prompt=messages(from_json_cell(values.get("prompt"), row), what="prompt"),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(values.get("tools"), row),
        row_id=name_of(values.get("id")),
        reward=rating(values.get("label"), rules, row),
        reward_reason="label" if values.get("label") is not None else "",
        model=name_of(first_of(values, "model")),
    )
    return [with_group_and_user(found, row)]


def label_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the label as it stands there."""
    return "label", row.values.get("label")


IMPORTER = Importer(
    name="kto",
    read=read_kto,
    summary="prompt, completion and a label: good or bad",
    looks_alike=has_columns("prompt", "completion", "label"),
    rank=30,
    because="it has prompt, completion and label",
    rating_in=label_in,
)
