"""verl's rows: data_source, prompt, reward_model {ground_truth}, extra_info; with responses once they were drawn."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import (
    are_messages,
    chat_cell,
    first_of,
    from_json_cell,
    listed,
    mapping,
    messages,
    name_of,
    tool_schemas,
)
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Row, RowError


def read_verl(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response per entry of `responses` (or the one `response`), rewards from `rewards` (or `reward`, `score`).

    Source: verl's documentation, "Prepare data for post-training", and the output of its main_generation.
    """
    values = row.values
    drawn = _drawn(row)
    if drawn is None:
        raise RowError(
            "prompts only: use them as a task file",
            "there is no column `responses` or `response`; task.kind = 'file' takes the file as it is, with "
            "task.question = 'prompt' and task.answer = 'reward_model.ground_truth'",
        )
    rewards = _rewards(row, len(drawn))
    said = [read_response(response, what="response") for response in drawn]
    tools = tool_schemas(values.get("tools"), row)
    prompt = messages(chat_cell(values.get("prompt"), row), what="prompt")
    metadata = _metadata(values, row)
    return [
        with_group_and_user(
            ParsedRow(
                prompt=prompt,
                response=response.text,
                turns=response.turns,
                tools=tools,
                row_id=name_of(first_of(values, "id", "uid")),
                part=part,
                reward=reward(value, rules, row),
                metadata=metadata,
            ),
            row,
        )
        for part, (response, value) in enumerate(zip(said, rewards, strict=True))
    ]


def _drawn(row: Row) -> Sequence[object] | None:
    """Return the responses; None where none were drawn. A list in `response` is several, unless it is of messages."""
    several = from_json_cell(row.values.get("responses"), row)
    if several is not None:
        return listed(several) or [several]
    value = row.values.get("response")
    one = chat_cell(value, row)
    entries = None if are_messages(one) else listed(one)
    return entries or (None if one is None else [one])


def _rewards(row: Row, count: int) -> Sequence[object]:
    given = from_json_cell(first_of(row.values, "rewards", "reward", "score"), row)
    if given is None:
        return [None] * count
    rewards = listed(given) or [given]
    if len(rewards) != count:
        raise RowError("another number of rewards than of responses", f"{len(rewards)} for {count}")
    return rewards


def _metadata(values: Mapping[str, object], row: Row) -> dict[str, str]:
    truth = mapping(from_json_cell(values.get("reward_model"), row)).get("ground_truth")
    index = mapping(from_json_cell(values.get("extra_info"), row)).get("index")
    named = {"data_source": values.get("data_source"), "answer": truth, "problem_id": index}
    return {name: str(value) for name, value in named.items() if isinstance(value, str | int | float)}


IMPORTER = Importer(
    name="verl",
    read=read_verl,
    summary="verl's rows, once they have responses",
    looks_alike=has_columns("data_source", "prompt", "reward_model"),
    rank=50,
    because="it has data_source, prompt and reward_model",
)
