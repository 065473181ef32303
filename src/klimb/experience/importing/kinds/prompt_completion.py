"""Rows for supervised fine-tuning: prompt and completion, or a whole dialogue in `messages`, some of it rated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from klimb.experience.importing.asked import read_prompt, rendering_of, with_columns
from klimb.experience.importing.cells import as_json, chat_cell, first_of, listed, mapping, name_of, tool_schemas
from klimb.experience.importing.chat import group_and_user
from klimb.experience.importing.conversations import (
    Said,
    is_rated,
    rating_beside,
    ratings_beside,
    read_dialogue,
    read_rated_turns,
    read_response,
)
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.langchain import openai_messages
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, rating, reward
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import Message


def read_prompt_completion(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response, mostly without a reward; a completion of several messages has turns.

    Of a whole dialogue the last message is the response, with `rules.turns` all that follows the first question. Where
    single turns of it are rated, each of those is a response, with what is before it as its prompt: its number is the
    place of its message.

    Source: TRL's documentation, "Dataset formats and types", prompt-completion, language modeling and tool calling;
    OpenAI's, "Supervised fine-tuning", the chat format with `tools` and `weight`.
    """
    _check_weight(row)
    if row.values.get("messages") is None:
        said = read_response(chat_cell(row.values.get("completion"), row), what="completion")
        prompt = read_prompt(row)
        return [_found(prompt, said, row, value=reward(row.values.get("reward"), rules, row))]
    spoken = openai_messages(as_json(chat_cell(row.values["messages"], row)))
    rated = read_rated_turns(spoken, what="messages", rating_of=partial(_rating_of, name=rules.score_name))
    if rated:
        return [
            replace(_found(each.prompt, each.said, row, value=rating(each.rating, rules, row)), part=each.place)
            for each in rated
        ]
    prompt, said = read_dialogue(spoken, what="messages", rules=rules)
    return [_found(prompt, said, row, value=reward(row.values.get("reward"), rules, row))]


def _check_weight(row: Row) -> None:
    """Raise RowError for a row of weight 0, which Fireworks' trainer leaves out; other weights are not read."""
    cells = row.values.cells if isinstance(row.values, Columns) else row.values
    weight = cells.get("weight")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if (is_number and weight == 0) or (row.is_text and weight in ("0", "0.0")):
        raise RowError("no turn to learn from", "the weight of the row is 0")


def _rating_of(entry: Mapping[str, object], *, name: str) -> object:
    return rating_beside(entry, name=name)[1]


def _found(prompt: tuple[Message, ...], said: Said, row: Row, *, value: float | None) -> ParsedRow:
    return ParsedRow(
        prompt=with_columns(prompt, row),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(first_of(row.values, "tools", "functions"), row),
        request=rendering_of(row),
        reward=value,
        row_id=name_of(row.values.get("id")),
        model=name_of(first_of(row.values, "model")),
        **group_and_user(row),
    )


def ratings_in(row: Row) -> list[tuple[str, object]]:
    """Return what is rated in the turns of a row, and each rating as it stands there."""
    entries = [mapping(entry) for entry in listed(as_json(chat_cell(row.values.get("messages"), row))) or ()]
    return [rating for entry in entries if is_rated(entry) for rating in ratings_beside(entry)]


def _is_dialogue(values: Mapping[str, object]) -> bool:
    return has_columns("prompt", "completion")(values) or "messages" in values


IMPORTER = Importer(
    name="prompt-completion",
    read=read_prompt_completion,
    summary="prompt and completion, or messages; mostly no rewards",
    looks_alike=_is_dialogue,
    rank=80,
    because="it has prompt and completion, or messages",
    rating_in=ratings_in,
    guessed=("reward", "id", "created_at", "model"),
)
