"""Plain columns: prompt, response, and whichever of the others there are."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.asked import with_columns
from klimb.experience.importing.cells import (
    are_messages,
    as_json,
    chat_cell,
    first_of,
    from_json_cell,
    messages,
    name_of,
    token_ids,
    tool_schemas,
    whole_number,
)
from klimb.experience.importing.chat import finish_reason_of, group_and_user
from klimb.experience.importing.conversations import Said, read_dialogue, read_response
from klimb.experience.importing.guessing import ROLES
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.request_settings import settings_among
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

COLUMNS = (
    *(
        "prompt",
        "response",
        "messages",
        "reward",
        "id",
        "group",
        "model",
        "finish_reason",
        "policy_version",
        "created_at",
        "user",
        "tools",
    ),
    *("prompt_token_ids", "token_ids", "log_probs", "temperature", "top_p", "top_k", "min_p"),
)


NEEDED = ("prompt", "response")


def read_table(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response; columns that the user mapped have been renamed before.

    A column of whole conversations is prompt and response in one: `messages`, or the one of the two that is there.
    """
    values = row.values
    prompt, said = _read_exchange(row, rules)
    parsed = ParsedRow(
        prompt=with_columns(prompt, row),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(values.get("tools"), row),
        finish_reason=finish_reason_of(values.get("finish_reason")),
        row_id=name_of(values.get("id")),
        reward=reward(values.get("reward"), rules, row),
        prompt_ids=token_ids(from_json_cell(values.get("prompt_token_ids"), row), what="prompt_token_ids"),
        response_ids=token_ids(from_json_cell(values.get("token_ids"), row), what="token_ids"),
        log_probs=from_json_cell(values.get("log_probs"), row),
        request=_request_of(row),
        model=name_of(first_of(values, "model")),
        policy_version=whole_number(values.get("policy_version") or 0, what="policy_version", row=row),
        **group_and_user(row),
    )
    return [parsed]


def _request_of(row: Row) -> Mapping[str, object]:
    asked, sampling = settings_among(row.values), row.values.get("sampling")
    return asked if sampling is None else {**asked, "sampling": from_json_cell(sampling, row)}


def _read_exchange(row: Row, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    values = row.values
    there = [name for name in NEEDED if name in values]
    if len(there) < len(NEEDED) and values.get("messages") is not None:
        return read_dialogue(chat_cell(values["messages"], row), what="messages", rules=rules)
    is_one_column = len(there) == 1 or (len(there) == 2 and values["prompt"] is values["response"])
    if is_one_column and is_conversation(cell := chat_cell(values[there[0]], row)):
        return read_dialogue(cell, what=there[0], rules=rules)
    for needed in NEEDED:
        if needed not in values:
            names = ", ".join(str(name) for name in values)
            raise RowError(f"no column {needed!r}", f"there are {names}; say which it is: --columns {needed}=NAME")
    asked, answered = (chat_cell(values[name], row) for name in NEEDED)
    if answered is None:
        names = values.names if isinstance(values, Columns) else {}
        raise RowError("no response", f"the cell of {names.get('response', 'response')} is empty")
    prompt = () if asked is None else messages(asked, what="prompt")
    return prompt, read_response(answered, what="response")


def is_conversation(value: object) -> bool:
    """Tell messages of both sides from those of one alone, and from text."""
    value = as_json(value)
    roles = {each["role"] for each in messages(value, what="messages")} if are_messages(value) else set[str]()
    return {"user", POLICY_ROLE} <= roles


IMPORTER = Importer(
    name="table",
    read=read_table,
    summary="columns prompt, response, reward, ...; --columns maps other names",
    looks_alike=has_columns("prompt", "response"),
    rank=70,
    because="it has prompt and response",
    needed=NEEDED,
    guessed=ROLES,
)
