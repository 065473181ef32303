"""Preference pairs: a chosen and a rejected response to one prompt."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import from_json_cell, messages, name_of
from klimb.experience.importing.chat import response_text, split_dialogue, with_group_and_user
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rows import Row, RowError
from klimb.experience.importing.rules import ImportRules
from klimb.experience.samples import Message

REWARDS: Mapping[str, float] = {"chosen": 1.0, "rejected": 0.0}


def read_preference(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """Two responses of one group, in the order chosen (reward 1), rejected (reward 0).

    Without a `prompt`, both are whole dialogues and what they have in common is the prompt.

    Source: TRL's documentation, "Dataset formats and types", preference.
    """
    sides = [_side(name, row) for name in REWARDS]
    if sides[0][0] != sides[1][0]:
        raise RowError("chosen and rejected answer different prompts", "their messages before the last differ")
    pairs = zip(sides, REWARDS.items(), strict=True)
    return [
        with_group_and_user(
            ParsedRow(
                prompt=prompt,
                response=response,
                row_id=name_of(row.values.get("id")),
                part=part,
                reward=value,
                reward_reason=name,
                metadata={"label": name},
            ),
            row,
        )
        for part, ((prompt, response), (name, value)) in enumerate(pairs)
    ]


def _side(name: str, row: Row) -> tuple[tuple[Message, ...], str]:
    value = from_json_cell(row.values.get(name), row)
    if row.values.get("prompt") is None:
        return split_dialogue(value, what=name)
    return messages(from_json_cell(row.values["prompt"], row), what="prompt"), response_text(value, what=name)


IMPORTER = Importer(
    name="preference",
    read=read_preference,
    summary="a chosen and a rejected response",
    looks_alike=has_columns("chosen", "rejected"),
    rank=40,
    because="it has chosen and rejected",
)
