"""Preference pairs: a chosen and a rejected response to one prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from klimb.experience.importing.asked import INSTRUCTION, PROMPTS, prompt_cell, rendering_of, with_columns
from klimb.experience.importing.cells import (
    chat_cell,
    first_of,
    from_json_cell,
    listed,
    mapping,
    message_role,
    messages,
    name_of,
    tool_schemas,
)
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import Said, read_dialogue, read_response, said_in
from klimb.experience.importing.human_assistant import is_dialogue_text, read_dialogue_text
from klimb.experience.importing.kind import Importer, has_columns
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

REWARDS: Mapping[str, float] = {"chosen": 1.0, "rejected": 0.0}


_REJECTED = ("rejected_response", "rejected_messages")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """One response with what it answers."""

    prompt: tuple[Message, ...]
    said: Said


def read_preference(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """Two responses of one group, in the order chosen (reward 1), rejected (reward 0).

        prompt, chosen, rejected               TRL's; the prompt may be called question or query
        chosen, rejected                       whole dialogues: what is before their last messages is the prompt
        prompt, chosen, rejected               whole dialogues beside the text of a question in them
        messages, rejected_response            ms-swift's: messages end with the chosen; or rejected_messages
        messages, chosen, rejected             LLaMA-Factory's: messages are the prompt
        input, preferred_output, non_preferred_output   OpenAI's; input has messages and tools

    With `rules.turns` the prompt of a dialogue is what is before its first answer. A dialogue may be a text of
    HH-RLHF's form.

    Source: TRL's documentation, "Dataset formats and types", preference; ms-swift's, "Custom dataset", DPO; OpenAI's,
    "Direct preference optimization"; the data set cards of ultrafeedback_binarized and hh-rlhf.
    """
    chosen, rejected = _sides(row, rules)
    if chosen.prompt != rejected.prompt:
        raise RowError("chosen and rejected answer different prompts", "their messages before the last differ")
    prompt = with_columns(chosen.prompt, row)
    tools = tool_schemas(_tools(row), row)
    pairs = zip((chosen.said, rejected.said), REWARDS.items(), strict=True)
    return [
        with_group_and_user(
            ParsedRow(
                prompt=prompt,
                response=said.text,
                turns=said.turns,
                tools=tools,
                request=rendering_of(row),
                row_id=name_of(row.values.get("id")),
                part=part,
                reward=value,
                reward_reason=name,
                metadata={"label": name},
            ),
            row,
        )
        for part, (said, (name, value)) in enumerate(pairs)
    ]


def _sides(row: Row, rules: ImportRules) -> Sequence[_Side]:
    values = row.values
    if "preferred_output" in values:
        return _openai_sides(row)
    if "chosen" not in values and "messages" in values:
        return _swift_sides(row, rules)
    return [_side(name, row, rules) for name in REWARDS]


def _tools(row: Row) -> object:
    if "preferred_output" in row.values:
        return mapping(from_json_cell(row.values.get("input"), row)).get("tools")
    return first_of(row.values, "tools", "functions")


def _openai_sides(row: Row) -> Sequence[_Side]:
    asked = from_json_cell(row.values.get("input"), row)
    prompt = messages(first_of(mapping(asked), "messages") or asked, what="input")
    return [
        _Side(prompt=prompt, said=read_response(chat_cell(row.values.get(name), row), what=name))
        for name in ("preferred_output", "non_preferred_output")
    ]


def _swift_sides(row: Row, rules: ImportRules) -> Sequence[_Side]:
    """Return both; a single rejected response stands in place of the last message, so turns cannot be compared."""
    name = next((name for name in _REJECTED if row.values.get(name) is not None), "")
    if not name:
        raise RowError("a pair with one response", f"none of {', '.join(_REJECTED)} holds one")
    rejected = chat_cell(row.values[name], row)
    if name == "rejected_response" or isinstance(rejected, str):
        rules = replace(rules, turns=False)
    chosen = _dialogue(row.values["messages"], row, rules, what="messages")
    if _begins_with_question(rejected):
        return chosen, _dialogue(rejected, row, rules, what=name)
    return chosen, replace(chosen, said=read_response(rejected, what=name))


def _side(name: str, row: Row, rules: ImportRules) -> _Side:
    value, asked = _spoken(row.values.get(name), row), _spoken(prompt_cell(row), row)
    if value is None:
        raise RowError("a pair with one response", f"{name} is empty")
    if asked is None and not _begins_with_question(value):  # LLaMA-Factory's messages, beside the answers to them
        asked = _spoken(row.values.get("messages"), row)
    if asked is None:
        if isinstance(value, str):
            raise RowError("no prompt", f"{name} is text, and there is none of {', '.join((*PROMPTS, *INSTRUCTION))}")
        return _dialogue(value, row, rules, what=name)
    if _begins_with_question(value):
        return _side_of_dialogue(value, asked, row, rules, what=name)
    prompt = messages(asked, what="prompt")
    if prompt and prompt[-1] == Message(role=POLICY_ROLE, content=""):  # HH-RLHF's text of a prompt ends like this
        prompt = prompt[:-1]
        value = value.removeprefix(" ") if isinstance(value, str) else value
    return _Side(prompt=prompt, said=read_response(value, what=name))


def _spoken(value: object, row: Row) -> object:
    """Return messages, or a text that is no dialogue."""
    return read_dialogue_text(value) if isinstance(value, str) and is_dialogue_text(value) else chat_cell(value, row)


def _begins_with_question(value: object) -> bool:
    first = next(iter(listed(value) or ()), None)
    return message_role(mapping(first)) in ("system", "user")


def _dialogue(value: object, row: Row, rules: ImportRules, *, what: str) -> _Side:
    prompt, said = read_dialogue(_spoken(value, row), what=what, rules=rules)
    return _Side(prompt=prompt, said=said)


def _side_of_dialogue(value: object, asked: object, row: Row, rules: ImportRules, *, what: str) -> _Side:
    """Return the side of a whole dialogue that stands beside its prompt: the messages before it, or a question in it.

    Raises:
        RowError: the dialogue is not of that prompt.
    """
    prompt, spoken = messages(asked, what="prompt"), messages(value, what=what)
    if not isinstance(asked, str) and spoken[: len(prompt)] == prompt:
        entries = listed(value) or ()
        said = said_in(entries[len(prompt) :], spoken[len(prompt) :], what=what)
        return _Side(prompt=prompt, said=said)
    side = _dialogue(value, row, rules, what=what)
    questions = [each["content"].strip() for each in side.prompt if each["role"] == "user"]
    if len(prompt) != 1 or prompt[0]["content"].strip() not in questions:
        raise RowError("a dialogue beside another prompt", f"the messages of {what} do not hold the row's prompt")
    return side


def _is_pair(values: Mapping[str, object]) -> bool:
    if has_columns("chosen", "rejected")(values) or has_columns("preferred_output", "non_preferred_output")(values):
        return True
    return "messages" in values and any(name in values for name in _REJECTED)


IMPORTER = Importer(
    name="preference",
    read=read_preference,
    summary="a chosen and a rejected response",
    looks_alike=_is_pair,
    rank=40,
    because="it has a chosen and a rejected response",
)
