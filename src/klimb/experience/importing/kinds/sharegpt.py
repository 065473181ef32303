"""ShareGPT's dialogues, as Vicuna, LLaMA-Factory, Axolotl and XTuner write them: who speaks, and what is said."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from klimb.experience.importing.cells import first_of, listed, mapping, messages, name_of, tool_schemas, unpacked
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import (
    Said,
    rating_beside,
    read_dialogue,
    read_rated_turns,
    read_response,
)
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules, rating, reward
from klimb.experience.reading.records import Columns, Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

DIALOGUES = ("conversations", "conversation", "items")


ROLES: Mapping[str, str] = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "bing", "bard", "chatgpt", "chatbot", "bot", "model", "ai"), POLICY_ROLE),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""Who speaks, in small letters -> a role of ours, or `call`: the assistant calls tools, and the text is the calls."""


_PAIRS = (("input", "output"), ("human", "assistant"), ("user", "assistant"))
"""Names of a question and its answer, where an entry holds both."""


_MEDIA = ("images", "image", "videos", "video", "audios", "audio")


_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "cot", "chain_of_thought")


_NO_THOUGHTS = ("", "on", "off", "true", "false", "yes", "no", "none", "low", "medium", "high")
"""What stands in such a column where it says whether, or how much, a model is to think."""


_LEARNED = ("train", "training", "loss")
"""Names under which an entry says with false that its turn is none to learn from."""


def read_sharegpt(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """One response: the last turn, with `rules.turns` all of the assistant's; of a pair two, chosen and rejected.

        conversations (or conversation, items): [{"from", "value"}] or [{"role", "content"}]
        system, tools:     LLaMA-Factory's columns; the tools may be JSON text
        chosen, rejected:  answers to the dialogue, rewards 1 and 0
        kto_tag, label:    true is reward 1, false is 0
        reward or score:   a reward, as it is
        a rating beside single entries: each of these is a response, with what is before it as its prompt

    The text of `function_call` is the calls as JSON; an `observation` answers the first call that none has answered.
    XTuner's entries hold a question and its answer, `input` and `output`.

    Source: LLaMA-Factory's data/README.md, "Sharegpt Format"; Axolotl's documentation, "Conversation"; XTuner's,
    "Multi-turn dialogue datasets". Read from these, not from files that the tools made.
    """
    values = row.values
    check_text_alone(values)
    what, spoken = _spoken(values)
    if first_of(values, "chosen") is not None or first_of(values, "rejected") is not None:
        return [with_group_and_user(part, row) for part in _pair(spoken, row, what=what)]
    rated = read_rated_turns(spoken, what=what, rating_of=lambda entry: rating_beside(entry, name=rules.score_name)[1])
    if rated:
        turns = [(each, _found(each.prompt, each.said, row)) for each in rated]
        return [replace(found, part=each.place, reward=rating(each.rating, rules, row)) for each, found in turns]
    prompt, said = read_dialogue(spoken, what=what, rules=rules)
    reason, value = _rewarded(row, rules)
    return [replace(_found(prompt, said, row), reward=value, reward_reason=reason)]


def _found(prompt: tuple[Message, ...], said: Said, row: Row) -> ParsedRow:
    """Return a response without a reward."""
    values = row.values
    found = ParsedRow(
        prompt=prompt,
        response=said.text,
        turns=said.turns,
        tools=tool_schemas(values.get("tools"), row),
        row_id=name_of(first_of(values, "id", "conversation_id")),
        model=name_of(values.get("model")),
    )
    return with_group_and_user(found, row)


def check_text_alone(values: Mapping[str, object]) -> None:
    """Raise RowError for a row with images, videos, sounds or thoughts beside its text."""
    for name in _MEDIA:
        if values.get(name):
            raise RowError("a row with more than text", f"its column {name!r} holds something")
    for name in _THOUGHTS:
        thoughts = values.get(name)
        if isinstance(thoughts, str) and thoughts.strip().lower() not in _NO_THOUGHTS:
            raise RowError("thoughts kept apart from the response", f"in the column {name!r}; write them into the text")


def rated_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the rating as it stands there: of turns, the one that is furthest from 0 to 1."""
    entries = [entry for name in DIALOGUES for entry in listed(unpacked(row.values.get(name))) or ()]
    rated = [stated for entry in entries if (stated := rating_beside(mapping(entry)))[1] is not None]
    return max(rated, key=_distance) if rated else kto_tag_in(row)


def _distance(stated: tuple[str, object]) -> float:
    return abs(stated[1] - 0.5) if isinstance(stated[1], int | float) else 0.0


def kto_tag_in(row: Row) -> tuple[str, object]:
    """Return what is rated, and the tag as it stands there; ms-swift's `label` is one where it is true or false."""
    if (tag := row.values.get("kto_tag")) is not None:
        return "kto_tag", tag
    # A label of another kind is a class and stays among the columns that are not read.
    label = (row.values.cells if isinstance(row.values, Columns) else row.values).get("label")
    is_truth = isinstance(label, bool) or (row.is_text and str(label).strip().lower() in ("true", "false"))
    return ("label", row.values["label"]) if is_truth else ("kto_tag", None)


def _rewarded(row: Row, rules: ImportRules) -> tuple[str, float | None]:
    """Return the name of the reward and the reward; empty and None for a row without one."""
    name, tag = kto_tag_in(row)
    if tag is not None:
        return name, rating(tag, rules, row)
    return "", reward(first_of(row.values, "reward", "score"), rules, row)


def _pair(spoken: Sequence[Mapping[str, object]], row: Row, *, what: str) -> list[ParsedRow]:
    prompt = messages(spoken, what=what)
    if prompt and prompt[-1]["role"] == POLICY_ROLE:
        raise RowError("chosen and rejected behind an answer", f"{what} end with the assistant, not with a question")
    tools, row_id = tool_schemas(row.values.get("tools"), row), name_of(first_of(row.values, "id", "conversation_id"))
    sides = [(name, _answer(row.values.get(name), what=name)) for name in ("chosen", "rejected")]
    return [
        ParsedRow(
            prompt=prompt,
            response=said.text,
            turns=said.turns,
            tools=tools,
            row_id=row_id,
            part=part,
            reward=1.0 - part,
            reward_reason=name,
            model=name_of(row.values.get("model")),
            metadata={"label": name},
        )
        for part, (name, said) in enumerate(sides)
    ]


def _answer(value: object, *, what: str) -> Said:
    """Return an answer: a text, an entry of the assistant, or several of which the first is."""
    value = unpacked(value)
    if isinstance(value, str):
        return Said(text=value)
    entries = _as_messages([value] if mapping(value) else value, what=what)
    if entries[0]["role"] != POLICY_ROLE:
        raise RowError(f"{what} begins with another than the assistant", f"with {entries[0]['role']!r}"[:80])
    return read_response(entries, what=what)


def _spoken(values: Mapping[str, object]) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of the dialogue's column and the dialogue as chat messages, behind the row's system message."""
    what = next((name for name in DIALOGUES if values.get(name) is not None), "")
    if not what:
        raise RowError("no conversations", f"expected a list in one of {', '.join(DIALOGUES)}")
    spoken, system = _as_messages(unpacked(values[what]), what=what), first_of(values, "system", "system_prompt")
    if system is None or system == "":
        return what, spoken
    if spoken[0]["role"] != "system":
        return what, [{"role": "system", "content": system}, *spoken]
    if spoken[0]["content"] != system:
        raise RowError("two system messages", f"the column's and that of {what} differ")
    return what, spoken


def _as_messages(value: object, *, what: str) -> list[dict[str, Any]]:
    entries = listed(value)
    if not entries:
        raise RowError(f"no {what}", f"expected a list of entries, got {type(value).__name__}, {str(value)[:40]!r}")
    spoken: list[dict[str, Any]] = []
    for place, entry in enumerate(entries):
        spoken += _as_message(mapping(entry), place=place, what=what)
    return _with_answered_calls(spoken)


def _as_message(entry: Mapping[str, object], *, place: int, what: str) -> list[dict[str, Any]]:
    who = first_of(entry, "from", "role")
    if who is None:
        return _question_and_answer(entry, what=what)
    role = ROLES.get(who.strip().lower(), who) if isinstance(who, str) else who
    rest = {name: cell for name, cell in entry.items() if name not in ("from", "role", "value", "content", "text")}
    if any(rest.get(name) is False for name in _LEARNED):
        rest["weight"] = 0
    text = first_of(entry, "value", "content", "text")
    if role == "call":
        return [{**rest, "role": POLICY_ROLE, "content": None, "tool_calls": _calls(text, place=place, what=what)}]
    return [{**rest, "role": role, "content": text}]


def _question_and_answer(entry: Mapping[str, object], *, what: str) -> list[dict[str, Any]]:
    """Return an entry that holds both, with the system message of the first."""
    for question, answer in _PAIRS:
        if question in entry and answer in entry:
            asked = [{"role": "user", "content": entry[question]}] if entry[question] else []
            system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
            return [*system, *asked, {"role": POLICY_ROLE, "content": entry[answer]}]
    raise RowError(f"{what} with an entry of nobody", f"expected from and value, it has {', '.join(entry)[:80]!r}")


def _calls(text: object, *, place: int, what: str) -> list[dict[str, Any]]:
    """Return the calls that the text of a `function_call` is, with ids by which results find them."""
    value = unpacked(text)
    calls = [mapping(call) for call in listed(value) or (value,)]
    if not all(calls):
        raise RowError(f"{what} with a call that is no JSON", f"expected name and arguments, got {str(text)[:60]!r}")
    return [{**call, "id": f"call-{place}-{number}"} for number, call in enumerate(calls)]


def _with_answered_calls(spoken: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write into each result, where the log does not, which call it answers: the first that none has answered."""
    waiting: list[object] = []
    for each in spoken:
        for call in listed(each.get("tool_calls")) or ():
            waiting.append(mapping(call).get("id"))
        if each["role"] == "tool" and each.get("tool_call_id") is None and waiting:
            each["tool_call_id"] = waiting.pop(0)
        elif each["role"] == "tool" and each.get("tool_call_id") in waiting:
            waiting.remove(each["tool_call_id"])
    return spoken


def _begins_with_question(value: object) -> bool:
    first = mapping(next(iter(listed(unpacked(value)) or ()), None))
    return first_of(first, "role", "from") in ("system", "user", "human")


def _is_sharegpt(values: Mapping[str, object]) -> bool:
    """Tell by a dialogue whose entries say who speaks; whole dialogues that were chosen and rejected stand for it."""
    if _begins_with_question(values.get("chosen")):
        return False
    for name in DIALOGUES:
        if name not in values:
            continue
        first = mapping(next(iter(listed(unpacked(values[name])) or ()), None))
        is_said = ("from" in first or "role" in first) and any(text in first for text in ("value", "content", "text"))
        if is_said or any(question in first and answer in first for question, answer in _PAIRS):
            return True
    return False


IMPORTER = Importer(
    name="sharegpt",
    read=read_sharegpt,
    summary="dialogues of ShareGPT's form, with from and value",
    looks_alike=_is_sharegpt,
    rank=35,
    because="it has conversations whose entries say who speaks",
    rating_in=rated_in,
    guessed=("reward",),
)
