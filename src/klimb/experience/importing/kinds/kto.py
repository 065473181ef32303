"""KTO rows, TRL's "unpaired preference": prompt, completion, label."""

from collections.abc import Sequence

from klimb.experience.importing.cells import first_of, from_json_cell, messages, name_of
from klimb.experience.importing.found import Found
from klimb.experience.importing.ratings import rating
from klimb.experience.importing.rows import Row
from klimb.experience.importing.rules import ImportRules
from klimb.experience.importing.turns import response_text, with_group_and_user


def read_kto(row: Row, rules: ImportRules) -> Sequence[Found]:
    """One response; a label that is null or missing is no rating.

    Source: TRL's documentation, "Dataset formats and types", unpaired preference.
    """
    values = row.values
    found = Found(
        prompt=messages(from_json_cell(values.get("prompt"), row), what="prompt"),
        response=response_text(from_json_cell(values.get("completion"), row), what="completion"),
        row_id=name_of(values.get("id")),
        reward=rating(values.get("label"), rules, row),
        reward_reason="label" if values.get("label") is not None else "",
        model=name_of(first_of(values, "model")),
    )
    return [with_group_and_user(found, row)]


def label_in(row: Row) -> tuple[str, object]:
    """What is rated, and the label as it stands there."""
    return "label", row.values.get("label")
