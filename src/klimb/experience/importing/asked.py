"""What a row asks, under the names that data sets give it."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import chat_cell, first_of, from_json_cell, listed, messages
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

PROMPTS = ("prompt", "question", "query")
"""Names of the column with the prompt; TRL's and verl's, those of many data sets, and ms-swift's."""


INSTRUCTION = ("instruction", "input")


_HISTORY = "expected [[question, answer], …]; if it is none of the prompt's: --ignore history"


def prompt_cell(row: Row) -> object:
    """Return the prompt of a row as it stands there, its text or its chat messages; None for none.

    An instruction with what it is about is one text, with a line feed between.

    Source: LLaMA-Factory's data/README.md, "Alpaca Format".
    """
    value = first_of(row.values, *PROMPTS)
    if value is None:
        parts = [row.values.get(name) for name in INSTRUCTION]
        texts = [part for part in parts if isinstance(part, str) and part]
        value = "\n".join(texts) if texts else None
    return chat_cell(value, row)


def read_prompt(row: Row) -> tuple[Message, ...]:
    """Return the prompt of a row: text or chat messages.

    Raises:
        RowError: there is none, or it cannot be read.
    """
    value = prompt_cell(row)
    if value is None:
        raise RowError("no prompt", f"expected one of {', '.join((*PROMPTS, *INSTRUCTION))}")
    return messages(value, what="prompt")


def with_columns(prompt: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
    """Return the same behind what the columns `system` and `history` say.

    Source: ms-swift's documentation, "Custom dataset", the query-response format; LLaMA-Factory's data/README.md.
    """
    before = read_history(from_json_cell(row.values.get("history"), row))
    asked = (*before, *prompt)
    system = first_of(row.values, "system", "system_prompt")
    if system is None or system == "":
        return asked
    if not isinstance(system, str):
        raise RowError("a system message that is not text", f"got {type(system).__name__}")
    told = [each["content"] for each in asked if each["role"] == "system"]
    if told and told != [system]:
        raise RowError("two system messages", "the column's and that of the messages differ")
    return asked if told else (Message(role="system", content=system), *asked)


RENDERING = ("chat_template_kwargs", "chat_template", "enable_thinking")
"""Columns that say how the messages become a prompt, and not what is asked; TRL's have the first."""


def rendering_of(row: Row) -> Mapping[str, object]:
    """Return what the row says of how its messages became a prompt, as a request says it."""
    stated = {name: from_json_cell(row.values.get(name), row) for name in RENDERING if name in row.values}
    return {name: value for name, value in stated.items() if value not in (None, "", {})}


def read_history(value: object) -> Sequence[Message]:
    """Return earlier questions with their answers, `[[question, answer], …]`, or chat messages, as messages."""
    if value is None or value == "":
        return ()
    rounds = listed(value)
    if rounds is None:
        raise RowError("a history that is no list", f"got {type(value).__name__}; {_HISTORY}")
    if all(listed(each) is None for each in rounds):
        return messages(rounds, what="history")
    found: list[Message] = []
    for each in rounds:
        texts = listed(each) or ()
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise RowError("a round of history that is no pair", f"got {str(each)[:60]!r}; {_HISTORY}")
        found += [
            Message(role=role, content=str(text)) for role, text in zip(("user", POLICY_ROLE), texts, strict=True)
        ]
    return found
