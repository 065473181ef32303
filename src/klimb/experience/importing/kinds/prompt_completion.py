"""Rows for supervised fine-tuning: prompt and completion, or a whole dialogue in `messages`."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import first_of, from_json_cell, messages, name_of, tool_schemas
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import read_dialogue, read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Row


def read_prompt_completion(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response, mostly without a reward; a completion of several messages has turns.

    Of a whole dialogue the last message is the response, with `rules.turns` all that follows the first question.

    Source: TRL's documentation, "Dataset formats and types", prompt-completion, language modeling and tool calling;
    OpenAI's, "Supervised fine-tuning", the chat format with `tools` and `weight`.
    """
    values = row.values
    if values.get("messages") is not None:
        prompt, said = read_dialogue(from_json_cell(values["messages"], row), what="messages", rules=rules)
    else:
        prompt = messages(from_json_cell(values.get("prompt"), row), what="prompt")
        said = read_response(from_json_cell(values.get("completion"), row), what="completion")
    found = ParsedRow(
        prompt=prompt,
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(first_of(values, "tools", "functions"), row),
        reward=reward(values.get("reward"), rules, row),
        row_id=name_of(values.get("id")),
        model=name_of(first_of(values, "model")),
    )
    return [with_group_and_user(found, row)]


def _is_dialogue(values: Mapping[str, object]) -> bool:
    return has_columns("prompt", "completion")(values) or "messages" in values


IMPORTER = Importer(
    name="prompt-completion",
    read=read_prompt_completion,
    summary="prompt and completion, or messages; mostly no rewards",
    looks_alike=_is_dialogue,
    rank=80,
    because="it has prompt and completion, or messages",
)
