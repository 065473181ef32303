"""Completions that TRL's GRPO and RLOO trainers log: what was drawn at a step, and what each reward function gave."""

import math
from collections.abc import Mapping, Sequence

from klimb.experience.importing.asked import read_prompt, rendering_of
from klimb.experience.importing.cells import chat_cell, name_of, number
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow, hash_of
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Columns, Row

_OTHERS = ("step", "prompt", "completion", "advantage", "mode", "id")
"""Columns that are no rewards; TRL writes one of each reward function, under its name, between them."""


def read_trl_completions(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response; each column of decimal numbers is a part of its reward.

    Each row is a draw of its own, also where another of its group says the same: without an `id` its id is made of its
    content and of its place in the file.

    TRL trains on a weighted sum of its reward functions and logs neither the sum nor the weights. So the reward is the
    column `reward`, or the only one that there is; of several none: `--columns reward=NAME` says which.

    Source: TRL 1.16, `GRPOTrainer.log`: step, prompt, completion, the rewards by name, what was logged beside them,
    advantage.
    """
    said = read_response(chat_cell(row.values.get("completion"), row), what="completion")
    parts = {name: value for name in _rewards_of(row) if (value := _value(name, row)) is not None}
    name = "reward" if "reward" in parts else next(iter(parts), "")
    is_known = "reward" in parts or len(parts) == 1
    found = ParsedRow(
        prompt=read_prompt(row),
        response=said.text,
        turns=said.turns,
        request=rendering_of(row),
        row_id=name_of(row.values.get("id")) or hash_of(row.place, row.raw),
        reward=reward(parts[name], rules, row) if is_known else None,
        reward_reason=name if is_known else "",
        reward_parts=parts,
        metadata={"step": name_of(row.values.get("step"))},
    )
    return [with_group_and_user(found, row)]


def _rewards_of(row: Row) -> Sequence[str]:
    """Return the columns that hold decimal numbers: TRL writes rewards as these, and other numbers as they were."""
    cells = row.values.cells if isinstance(row.values, Columns) else row.values
    return [name for name, value in cells.items() if name not in _OTHERS and _is_decimal(value, row)]


def _is_decimal(value: object, row: Row) -> bool:
    if isinstance(value, str) and row.is_text:
        try:
            return "." in value and math.isfinite(float(value))
        except ValueError:
            return False
    return isinstance(value, float)


def _value(name: str, row: Row) -> float | None:
    """Return a reward; none where a function gave none, which is no number there."""
    value = row.values[name]
    if isinstance(value, float) and math.isnan(value):
        return None
    return number(value, what=f"the reward {name}", row=row)


def _is_trl(values: Mapping[str, object]) -> bool:
    return has_columns("step", "prompt", "completion", "advantage")(values)


IMPORTER = Importer(
    name="trl-completions",
    read=read_trl_completions,
    summary="completions that TRL's trainers log, with their rewards",
    looks_alike=_is_trl,
    rank=25,
    because="it has step, prompt, completion and advantage",
)
