"""Preference pairs: a chosen and a rejected response to one prompt."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import from_json_cell, messages, name_of, tool_schemas
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import Said, read_dialogue, read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import Message

REWARDS: Mapping[str, float] = {"chosen": 1.0, "rejected": 0.0}


def read_preference(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """Two responses of one group, in the order chosen (reward 1), rejected (reward 0).

    Without a `prompt`, both are whole dialogues: what is before their last messages is the prompt, or with
    `rules.turns` what is before their first answers.

    Source: TRL's documentation, "Dataset formats and types", preference.
    """
    sides = [_side(name, row, rules) for name in REWARDS]
    if sides[0][0] != sides[1][0]:
        raise RowError("chosen and rejected answer different prompts", "their messages before the last differ")
    tools = tool_schemas(row.values.get("tools"), row)
    pairs = zip(sides, REWARDS.items(), strict=True)
    return [
        with_group_and_user(
            ParsedRow(
                prompt=prompt,
                response=said.text,
                turns=said.turns,
                tools=tools,
                row_id=name_of(row.values.get("id")),
                part=part,
                reward=value,
                reward_reason=name,
                metadata={"label": name},
            ),
            row,
        )
        for part, ((prompt, said), (name, value)) in enumerate(pairs)
    ]


def _side(name: str, row: Row, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    value = from_json_cell(row.values.get(name), row)
    if row.values.get("prompt") is None:
        return read_dialogue(value, what=name, rules=rules)
    return messages(from_json_cell(row.values["prompt"], row), what="prompt"), read_response(value, what=name)


IMPORTER = Importer(
    name="preference",
    read=read_preference,
    summary="a chosen and a rejected response",
    looks_alike=has_columns("chosen", "rejected"),
    rank=40,
    because="it has chosen and rejected",
)
