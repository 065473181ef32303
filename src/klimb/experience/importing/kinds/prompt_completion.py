"""Rows for supervised fine-tuning: prompt and completion, or a whole dialogue in `messages`."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import first_of, from_json_cell, messages, name_of
from klimb.experience.importing.chat import response_text, split_dialogue, with_group_and_user
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rows import Row
from klimb.experience.importing.rules import ImportRules


def read_prompt_completion(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response without a reward; of a dialogue, the last message is the response.

    Source: TRL's documentation, "Dataset formats and types", prompt-completion and language modeling.
    """
    values = row.values
    if values.get("messages") is not None:
        prompt, response = split_dialogue(from_json_cell(values["messages"], row), what="messages")
    else:
        prompt = messages(from_json_cell(values.get("prompt"), row), what="prompt")
        response = response_text(from_json_cell(values.get("completion"), row), what="completion")
    found = ParsedRow(
        prompt=prompt,
        response=response,
        row_id=name_of(values.get("id")),
        model=name_of(first_of(values, "model")),
    )
    return [with_group_and_user(found, row)]


def _is_dialogue(values: Mapping[str, object]) -> bool:
    return has_columns("prompt", "completion")(values) or "messages" in values


IMPORTER = Importer(
    name="prompt-completion",
    read=read_prompt_completion,
    summary="prompt and completion, or messages; no rewards",
    looks_alike=_is_dialogue,
    rank=80,
    because="it has prompt and completion, or messages",
)
