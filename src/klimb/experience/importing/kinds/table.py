"""Plain columns: prompt, response, and whichever of the others there are."""

from collections.abc import Sequence

from klimb.experience.importing.cells import (
    chat_cell,
    first_of,
    from_json_cell,
    mapping,
    messages,
    name_of,
    token_ids,
    tool_schemas,
    whole_number,
)
from klimb.experience.importing.chat import finish_reason_of, with_group_and_user
from klimb.experience.importing.conversations import read_response
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.log_probs import ALIASES
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, reward
from klimb.experience.reading.records import Row, RowError

COLUMNS = (
    *(
        "prompt",
        "response",
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
    """One response; columns that the user mapped have been renamed before."""
    values = row.values
    for needed in NEEDED:
        if needed not in values:
            names = ", ".join(str(name) for name in values)
            raise RowError(f"no column {needed!r}", f"there are {names}; say which it is: --columns {needed}=NAME")
    request = {name: values[name] for aliases in ALIASES.values() for name in aliases if name in values}
    said = read_response(chat_cell(values["response"], row), what="response")
    found = ParsedRow(
        prompt=messages(chat_cell(values["prompt"], row), what="prompt"),
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(values.get("tools"), row),
        finish_reason=finish_reason_of(values.get("finish_reason")),
        row_id=name_of(values.get("id")),
        reward=reward(values.get("reward"), rules, row),
        prompt_ids=token_ids(from_json_cell(values.get("prompt_token_ids"), row), what="prompt_token_ids"),
        response_ids=token_ids(from_json_cell(values.get("token_ids"), row), what="token_ids"),
        log_probs=from_json_cell(values.get("log_probs"), row),
        request={**mapping(from_json_cell(values.get("sampling"), row)), **request},
        model=name_of(first_of(values, "model")),
        policy_version=whole_number(values.get("policy_version") or 0, what="policy_version", row=row),
    )
    return [with_group_and_user(found, row)]


IMPORTER = Importer(
    name="table",
    read=read_table,
    summary="columns prompt, response, reward, ...; --columns maps other names",
    looks_alike=has_columns("prompt", "response"),
    rank=70,
    because="it has prompt and response",
    needed=NEEDED,
)
