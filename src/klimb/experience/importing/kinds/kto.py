"""KTO rows: a prompt, one response, and a label; TRL's "unpaired preference", ms-swift's and LLaMA-Factory's."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.asked import PROMPTS, read_prompt, rendering_of, with_columns
from klimb.experience.importing.cells import chat_cell, first_of, name_of, tool_schemas
from klimb.experience.importing.chat import group_and_user
from klimb.experience.importing.conversations import Said, read_dialogue, read_response
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, rating
from klimb.experience.reading.records import Row
from klimb.experience.samples import Message

_LABELS = ("label", "kto_tag", "rating", "thumbs")


_RESPONSES = ("completion", "response")


def read_kto(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response; a label that is null or missing is no rating. Of `messages` the last is the response.

    Source: TRL's documentation, "Dataset formats and types", unpaired preference; ms-swift's, "Custom dataset", KTO;
    LLaMA-Factory's data/README.md, "KTO Dataset".
    """
    prompt, said = _asked_and_said(row, rules)
    name, label = label_in(row)
    parsed = ParsedRow(
        prompt=with_columns(prompt, row),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(first_of(row.values, "tools", "functions"), row),
        request=rendering_of(row),
        row_id=name_of(row.values.get("id")),
        reward=rating(label, rules, row),
        reward_reason=name if label is not None else "",
        model=name_of(first_of(row.values, "model")),
        **group_and_user(row),
    )
    return [parsed]


def _asked_and_said(row: Row, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    if row.values.get("messages") is not None:
        return read_dialogue(chat_cell(row.values["messages"], row), what="messages", rules=rules)
    return read_prompt(row), read_response(chat_cell(first_of(row.values, *_RESPONSES), row), what="completion")


def label_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the label as it stands there."""
    names = [name for name in _LABELS if name in row.values]
    name = next((name for name in names if row.values[name] is not None), names[0] if names else _LABELS[0])
    return name, row.values.get(name)


def _is_kto(values: Mapping[str, object]) -> bool:
    """Tell by an answer and a label. Columns of a table may be called anything: there a rating is none."""
    labels = _LABELS[:2] if "response" in values else _LABELS
    if "reward" in values or not any(name in values for name in labels):
        return False
    has_both = any(name in values for name in PROMPTS) and any(name in values for name in _RESPONSES)
    return has_both or "messages" in values


IMPORTER = Importer(
    name="kto",
    read=read_kto,
    summary="a prompt, a response and a label: good or bad",
    looks_alike=_is_kto,
    rank=30,
    because="it has a response and a label",
    rating_in=label_in,
)
