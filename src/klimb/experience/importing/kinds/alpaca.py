"""Alpaca's rows: an instruction, what it is about, and the answer."""

from collections.abc import Mapping, Sequence

from klimb.experience.importing.cells import first_of, from_json_cell, listed, name_of, tool_schemas, unpacked
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.kinds.sharegpt import check_text_alone, kto_tag_in
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, rating, reward
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

_ANSWERS = ("output", "response")


_TELL_OTHERS = ("prompt", "messages", "conversations", "completion")
"""Columns of other kinds: a row with one of them is not taken for Alpaca's, whatever else it has."""


def read_alpaca(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    r"""One response; of a pair two, chosen and rejected.

        prompt = system, then each question and answer of history, then instruction + "\n" + input

    An empty instruction or input is left out with its line feed. The template of Stanford's Alpaca ("Below is an
    instruction …") is not put around it, and a column `text`, which holds the row with a template, is not read: a chat
    model has its own. Dolly's `context` and `response` are read as `input` and `output`.

        output (or response):  the answer
        chosen, rejected:      two answers, rewards 1 and 0
        kto_tag, label:        true is reward 1, false is 0
        reward or score:       a reward, as it is
        system, tools, id, model: where they are there

    Source: LLaMA-Factory's data/README.md, "Alpaca Format", and its AlpacaDatasetConverter; Stanford Alpaca's README,
    "Data Release". Read from these, not from files that the tools made.
    """
    values = row.values
    check_text_alone(values)
    prompt, tools = _prompt(row), tool_schemas(values.get("tools"), row)
    parts = [
        ParsedRow(
            prompt=prompt,
            response=response,
            tools=tools,
            row_id=name_of(values.get("id")),
            part=part,
            reward=value,
            reward_reason=name,
            model=name_of(values.get("model")),
            metadata={"label": name} if name in ("chosen", "rejected") else {},
        )
        for part, (response, name, value) in enumerate(_answers(row, rules))
    ]
    return [with_group_and_user(part, row) for part in parts]


def _answers(row: Row, rules: ImportRules) -> list[tuple[str, str, float | None]]:
    """Return each answer with the name of its reward and the reward."""
    values = row.values
    if first_of(values, "chosen", "rejected") is not None:
        return [(_answer(values.get(name), name), name, 1.0 - part) for part, name in enumerate(("chosen", "rejected"))]
    answer = _answer(first_of(values, *_ANSWERS), "output")
    name, tag = kto_tag_in(row)
    if tag is not None:
        return [(answer, name, rating(tag, rules, row))]
    return [(answer, "", reward(first_of(values, "reward", "score"), rules, row))]


def _answer(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{what} is not text", f"got {type(value).__name__}; expected one answer, as text")
    return value


def _prompt(row: Row) -> tuple[Message, ...]:
    values = row.values
    instruction = _text(first_of(values, "instruction", "prompt"), "instruction")
    asked = "\n".join(filter(None, (instruction, _text(first_of(values, "input", "context"), "input"))))
    if not asked:
        raise RowError("no instruction", "instruction and input are empty")
    system = _text(first_of(values, "system", "system_prompt"), "system")
    before = [Message(role="system", content=system)] if system else []
    return (*before, *_history(from_json_cell(values.get("history"), row)), Message(role="user", content=asked))


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f"{what} is not text", f"got {type(value).__name__}")
    return value


def _history(value: object) -> list[Message]:
    if value is None or value == "":
        return []
    rounds = listed(unpacked(value))
    if rounds is None:
        raise RowError("history is not a list", f"got {type(value).__name__}; expected [[question, answer], …]")
    found: list[Message] = []
    for each in rounds:
        texts = listed(each) or ()
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise RowError("a round of history that is no pair", f"got {str(each)[:60]!r}; expected [question, answer]")
        question, answer = map(str, texts)
        found += [Message(role="user", content=question), Message(role=POLICY_ROLE, content=answer)]
    return found


def _is_alpaca(values: Mapping[str, object]) -> bool:
    has_answer = any(name in values for name in _ANSWERS) or isinstance(values.get("chosen"), str)
    return "instruction" in values and has_answer and not any(name in values for name in _TELL_OTHERS)


IMPORTER = Importer(
    name="alpaca",
    read=read_alpaca,
    summary="instruction, input and output; mostly no rewards",
    looks_alike=_is_alpaca,
    rank=36,
    because="it has an instruction and its answer",
    rating_in=kto_tag_in,
    guessed=("reward",),
)
