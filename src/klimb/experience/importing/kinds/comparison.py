"""Two responses side by side and which of them was better, as arenas and data sets of preferences have them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from klimb.experience.importing.asked import prompt_cell
from klimb.experience.importing.cells import (
    chat_cell,
    first_of,
    from_json_cell,
    listed,
    mapping,
    messages,
    name_of,
    number,
)
from klimb.experience.importing.chat import with_group_and_user
from klimb.experience.importing.conversations import Said, read_dialogue, read_response
from klimb.experience.importing.kind import Importer
from klimb.experience.importing.parsed_row import ParsedRow
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import POLICY_ROLE, Message

_WINNERS: Mapping[str, int | None] = {
    **dict.fromkeys(("model_a", "a", "left", "leftvote"), 0),
    **dict.fromkeys(("model_b", "b", "right", "rightvote"), 1),
    **dict.fromkeys(("tie", "tie (bothbad)", "both_bad", "bothbad", "both_good", "tievote", "bothbad_vote"), None),
}
"""What arenas call the better one, in small letters; None for a tie."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Where the two stand, and who won: 0 or 1, or None for a tie."""

    sides: tuple[str, str]
    winner_of: Callable[[Row], int | None]
    models: tuple[str, str] = ("model_a", "model_b")


def read_comparison(row: Row, rules: ImportRules) -> Sequence[ParsedRow]:
    """Two responses of one group, the better with reward 1 and the other with 0; nothing of a tie.

        conversation_a, conversation_b, winner                 Chatbot Arena; whole conversations
        response_a, response_b, winner or winner_model_a, …    LMSYS's competition, with prompt
        response_0, response_1, better_response_id             PKU-SafeRLHF
        response_1, response_2, preference_strength            HelpSteer2, below 0 for the first
        response1, response2, overall_preference               HelpSteer3, the same, with context
        answer_0, answer_1, score_0, score_1                   WebGPT's comparisons
        human_ref_A, human_ref_B, labels                       Stanford Human Preferences, 1 for the first, with history

    Conversations of several turns that differ before their last answers need `rules.turns`.

    Source: the cards of these data sets.

    Raises:
        RowError: a verdict that is none of these, or two prompts.
    """
    form = next((form for form in _FORMS if _has(form, row.values)), None)
    if form is None:
        raise RowError(
            "no comparison", "expected two responses as " + ", or ".join(" and ".join(f.sides) for f in _FORMS)
        )
    winner = form.winner_of(row)
    if winner is None:
        return []
    sides = [_side(name, row, rules) for name in form.sides]
    if sides[0][0] != sides[1][0]:
        raise RowError(
            "two conversations with different histories",
            "with --turns all turns behind the first question are compared",
        )
    return [
        with_group_and_user(
            ParsedRow(
                prompt=prompt,
                response=said.text,
                turns=said.turns,
                row_id=name_of(first_of(row.values, "id", "question_id")),
                part=part,
                reward=float(part == winner),
                reward_reason="better" if part == winner else "worse",
                model=name_of(row.values.get(form.models[part])),
                metadata={"label": name},
            ),
            row,
        )
        for part, (name, (prompt, said)) in enumerate(zip(form.sides, sides, strict=True))
    ]


def _side(name: str, row: Row, rules: ImportRules) -> tuple[tuple[Message, ...], Said]:
    """Return what was asked, and what this side said."""
    value = chat_cell(row.values.get(name), row)
    asked = _asked(row)
    if asked is None:
        return read_dialogue(value, what=name, rules=rules)
    questions, answers = _texts(asked, row), _texts(row.values.get(name), row)
    if questions is None or answers is None:
        return messages(asked, what="prompt"), read_response(value, what=name)
    if len(questions) != len(answers):
        raise RowError("another number of questions than of answers", f"{len(questions)} and {len(answers)}")
    pairs = zip(questions, answers, strict=True)
    spoken = [({"role": "user", "content": q}, {"role": POLICY_ROLE, "content": a}) for q, a in pairs]
    return read_dialogue([each for pair in spoken for each in pair], what=name, rules=rules)


def _texts(value: object, row: Row) -> Sequence[object] | None:
    """Return the turns of one side, where a cell is a list of texts."""
    entries = listed(from_json_cell(value, row))
    return entries if entries and all(isinstance(entry, str) for entry in entries) else None


def _asked(row: Row) -> object:
    """Return the prompt that stands beside the two; None where they are whole conversations."""
    question = row.values.get("question")
    if mapping(question):
        return mapping(question).get("full_text")
    found = prompt_cell(row)
    return chat_cell(first_of(row.values, "context", "history"), row) if found is None else found


def _by_name(row: Row) -> int | None:
    """Read `winner`, or one flag for each."""
    winner = row.values.get("winner")
    if isinstance(winner, str) and winner.strip().lower() in _WINNERS:
        return _WINNERS[winner.strip().lower()]
    if winner is not None:
        raise RowError("a winner that is none", f"got {winner!r}"[:80] + f"; expected one of {', '.join(_WINNERS)}")
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    flags = [row.values.get(name) for name in names]
    found = [number(flag or 0, what=name, row=row) for name, flag in zip(names, flags, strict=True)]
    if sorted(found) != [0, 0, 1]:
        raise RowError("no winner", f"there is no column winner, and {', '.join(names)} say {flags}")
    return (0, 1, None)[found.index(1)]


def _by_place(name: str, *, first: int) -> Callable[[Row], int | None]:
    """Read the number of the better one; `first` is that of the first."""

    def winner_of(row: Row) -> int | None:
        value = row.values.get(name)
        if value is None or value == "":
            return None
        found = number(value, what=name, row=row)
        if found not in (0, 1):
            raise RowError("a winner that is none", f"{name} is {value!r}; expected 0 or 1")
        return int(found != first)

    return winner_of


def _by_sign(name: str) -> Callable[[Row], int | None]:
    """Read a strength of preference: below 0 for the first, above for the second."""

    def winner_of(row: Row) -> int | None:
        value = row.values.get(name)
        found = 0.0 if value is None or value == "" else number(value, what=name, row=row)
        return None if found == 0 else int(found > 0)

    return winner_of


def _by_scores(row: Row) -> int | None:
    scores = [number(row.values.get(name), what=name, row=row) for name in ("score_0", "score_1")]
    return None if scores[0] == scores[1] else int(scores[1] > scores[0])


_FORMS = (
    _Form(sides=("conversation_a", "conversation_b"), winner_of=_by_name),
    _Form(sides=("response_a", "response_b"), winner_of=_by_name),
    _Form(
        sides=("response_0", "response_1"),
        winner_of=_by_place("better_response_id", first=0),
        models=("response_0_source", "response_1_source"),
    ),
    _Form(sides=("response_1", "response_2"), winner_of=_by_sign("preference_strength")),
    _Form(sides=("response1", "response2"), winner_of=_by_sign("overall_preference")),
    _Form(sides=("answer_0", "answer_1"), winner_of=_by_scores),
    _Form(sides=("human_ref_A", "human_ref_B"), winner_of=_by_place("labels", first=1)),
)


_VERDICTS = frozenset(
    {"winner", "winner_model_a", "better_response_id", "preference_strength", "overall_preference", "score_1", "labels"}
)


def _has(form: _Form, values: Mapping[str, object]) -> bool:
    return all(name in values for name in form.sides)


def _is_comparison(values: Mapping[str, object]) -> bool:
    return any(_has(form, values) for form in _FORMS) and not _VERDICTS.isdisjoint(values)


IMPORTER = Importer(
    name="comparison",
    read=read_comparison,
    summary="two responses side by side, and which is better",
    looks_alike=_is_comparison,
    rank=45,
    because="it has two responses and a verdict",
    nothing="comparisons without a winner",
)
