"""What changed per problem: counts beside what luck would show, a picture, and a row for each problem.

Answers before and after training side by side.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord, change_between
from klimb.findings.run.changes import (
    ALWAYS,
    KINDS,
    MUCH,
    NEVER,
    Kind,
    PromptChange,
    by_problem,
    counted,
    expected_by_luck,
)
from klimb.ui.chart import Chart, Curve
from klimb.ui.escaping import cut
from klimb.ui.pages.run_tiles import change_text, over_units
from klimb.ui.statuses import LOOKS

SHOWN: tuple[tuple[Kind, int], ...] = (("learned", 3), ("lost", 3), ("never", 2), ("between", 1), ("always", 1))
"""How many problems of each kind are shown."""


MOST_ANSWERS = 3


KIND_CSS: dict[Kind, str] = {"learned": "good", "lost": "bad", "never": "warning", "between": "quiet", "always": "note"}


def chosen(changes: Sequence[PromptChange]) -> list[PromptChange]:
    """Return the first few problems of each kind, in the evaluation's own order: none is picked for its text."""
    return [change for kind, count in SHOWN for change in [part for part in changes if part.kind == kind][:count]]


def samples(changes: Sequence[PromptChange], *, is_accuracy: bool) -> list[dict[str, Any]]:
    """Return the chosen problems with their answers before and after."""
    return [
        _sample(
            change.before,
            _answers(change.before, "before", is_accuracy=is_accuracy),
            _answers(change.after, "after", is_accuracy=is_accuracy),
            kind=change.kind,
        )
        for change in chosen(changes)
    ]


def answers(record: EvaluationRecord, *, most: int = 6) -> list[dict[str, Any]]:
    """Answers of one evaluation alone, for a run that has no second one."""
    return [
        _sample(problem, _answers(problem, "answer", is_accuracy=record.is_accuracy))
        for problem in record.problems[:most]
    ]


@dataclass(frozen=True)
class Score:
    """Words about values, and their colour."""

    text: str
    css: str = ""


def score(values: Sequence[float], *, is_accuracy: bool) -> Score:
    """`3 of 4 correct`, or the mean and range of rewards."""
    if not values:
        return Score("not scored", "quiet")
    if is_accuracy:
        right = round(sum(values))
        css = "good" if 2 * right > len(values) else "bad" if right == 0 else "warning"
        return Score(f"{right} of {len(values)} correct", css)
    mean = sum(values) / len(values)
    span = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
    return Score(f"reward {mean:.3g}{span}")


def _sample(problem: ProblemRecord, *parts: dict[str, Any], kind: Kind | None = None) -> dict[str, Any]:
    return {
        "kind": kind,
        "css": KIND_CSS[kind] if kind else "",
        "name": problem.problem_id,
        "question": problem.question,
        "parts": parts,
    }


def _answers(problem: ProblemRecord, when: str, *, is_accuracy: bool) -> dict[str, Any]:
    """Return the first answer, and the others beside their marks; which value is whose is known if all were scored."""
    is_complete = len(problem.values) == len(problem.answers)
    marks = [_mark(value, is_accuracy=is_accuracy) for value in problem.values] if is_complete else []
    first, *others = problem.answers[:MOST_ANSWERS] or (None,)
    hidden = len(problem.answers) - MOST_ANSWERS
    return {
        "when": when,
        "score": score(problem.values, is_accuracy=is_accuracy),
        "mark": marks[0] if len(marks) > 1 else None,
        "first": first,
        "more": f"{len(others)} more answers{f', and {hidden} not on this page' if hidden > 0 else ''}",
        "others": list(zip_longest(marks[1:MOST_ANSWERS], others)),
    }


def _mark(value: float, *, is_accuracy: bool) -> Score:
    if not is_accuracy:
        return Score(f"{value:.3g}", "quiet")
    status, word = ("good", "correct") if value > 0 else ("bad", "wrong")
    return Score(f"{LOOKS[status].sign} {word}", status)


MOST_ROWS = 120


MOST_CELLS = 8


QUESTION_CHARACTERS = 90


LEVELS = 5


ORDER: tuple[Kind, ...] = ("lost", "learned", "between", "never", "always")


MEANINGS: dict[Kind, str] = {
    "learned": f"mean up by {100 * MUCH:.0f} % of the range or more",
    "lost": f"mean down by {100 * MUCH:.0f} % of the range or more",
    "never": f"at most {100 * NEVER:.0f} % of the range, both times",
    "always": f"at least {100 * ALWAYS:.0f} % of the range, both times",
    "between": "all others",
}


def prompts(
    changes: Sequence[PromptChange],
    first: EvaluationRecord,
    second: EvaluationRecord,
    history: Sequence[EvaluationRecord],
) -> dict[str, Any]:
    """Return the whole part for one run; `history` holds all evaluations in order."""
    change = change_between(first, second)
    assert change is not None  # changes hold a problem, and so do the evaluations
    return {
        "num_problems": len(changes),
        "first": _when(first),
        "second": _when(second),
        "change": change_text(change, is_accuracy=first.is_accuracy),
        "over": over_units(change),
        "is_known": change.is_known,
        "is_clear": change.is_positive or change.is_negative,
        "counts": _counts(changes, is_accuracy=first.is_accuracy),
        "chart": bubbles(changes),
        **_table(changes, history, is_accuracy=first.is_accuracy),
    }


def counts_line(changes: Sequence[PromptChange], *, is_accuracy: bool) -> str:
    """`12 learned (0.4 by luck), 0 lost (0.3), …` as plain text, for a table of several runs."""
    counts, luck = counted(changes), expected_by_luck(changes, is_accuracy=is_accuracy)
    return ", ".join(f"{counts[kind]} {kind} ({luck[kind]:.1f} by luck)" for kind in ("learned", "lost"))


def _counts(changes: Sequence[PromptChange], *, is_accuracy: bool) -> list[dict[str, Any]]:
    counts, luck = counted(changes), expected_by_luck(changes, is_accuracy=is_accuracy)
    return [
        {
            "kind": kind,
            "css": KIND_CSS[kind],
            "count": counts[kind],
            "luck": f"{luck[kind]:.1f}",
            "meaning": MEANINGS[kind],
        }
        for kind in KINDS
    ]


def bubbles(changes: Sequence[PromptChange]) -> Chart:
    """Before across, after up: each circle's area is the number of problems there; above the diagonal is better."""
    cells = Counter((_level(change.low), _level(change.high)) for change in changes)
    kinds = (
        ("better", 2, {place: count for place, count in cells.items() if place[1] > place[0]}),
        ("worse", 1, {place: count for place, count in cells.items() if place[1] < place[0]}),
        ("as before", 6, {place: count for place, count in cells.items() if place[1] == place[0]}),
    )
    clouds = (_cloud(label, colour, found, max(cells.values())) for label, colour, found in kinds if found)
    diagonal = Curve(label="no change", x=(0.0, 100.0), y=(0.0, 100.0), colour=6, dash=2)
    return Chart(
        title="Problems before and after",
        unit="up: mean after, %",
        axis="mean before, %",
        curves=(diagonal, *clouds),
        floor=0.0,
        ceiling=100.0,
    )


def _cloud(label: str, colour: int, found: Mapping[tuple[int, int], int], most: int) -> Curve:
    places = sorted(found)
    return Curve(
        label=label,
        x=[_percent(low) for low, _ in places],
        y=[_percent(high) for _, high in places],
        sizes=[found[place] for place in places],
        largest=most,
        colour=colour,
        mark="points",
    )


def _level(share: float) -> int:
    return round(min(1.0, max(0.0, share)) * (LEVELS - 1))


def _percent(level: int) -> float:
    return 100.0 * level / (LEVELS - 1)


def _table(
    changes: Sequence[PromptChange], history: Sequence[EvaluationRecord], *, is_accuracy: bool
) -> dict[str, Any]:
    """Every problem with its mean at each evaluation; the ones that got worse come first."""
    shown = _spread(history)
    ordered = sorted(changes, key=lambda change: (ORDER.index(change.kind), change.change))
    means = [_means(made) for made in shown]
    return {
        "heads": [_short(made) for made in shown],
        "rows": [_row(change, means, is_accuracy=is_accuracy) for change in ordered[:MOST_ROWS]],
        "num_left_out": max(0, len(ordered) - MOST_ROWS),
    }


def _row(change: PromptChange, means: Sequence[dict[str, float]], *, is_accuracy: bool) -> dict[str, Any]:
    name = change.before.problem_id
    question = cut(" ".join(change.before.question[: 4 * QUESTION_CHARACTERS].split()), QUESTION_CHARACTERS)
    return {
        "question": question or cut(name, 40),
        "kind": change.kind,
        "css": KIND_CSS[change.kind],
        "cells": [_cell(part.get(name), is_accuracy=is_accuracy) for part in means],
    }


def _cell(mean: float | None, *, is_accuracy: bool) -> Score:
    if mean is None:
        return Score("–", "quiet")
    if not is_accuracy:
        return Score(f"{mean:.3g}")
    return Score(f"{100 * mean:.0f} %", f"heat{min(3, int(mean * 4))}")


def _means(record: EvaluationRecord) -> dict[str, float]:
    return {name: statistics.fmean(problem.values) for name, problem in by_problem(record).items() if problem.values}


def _spread(history: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """At most `MOST_CELLS` of the evaluations that know their problems: the first, the last, some between."""
    known = [made for made in history if made.problems]
    if len(known) <= MOST_CELLS:
        return known
    return [known[round(index * (len(known) - 1) / (MOST_CELLS - 1))] for index in range(MOST_CELLS)]


def _when(record: EvaluationRecord) -> str:
    words = {"before": "before training", "after": "after it"}
    return words.get(record.when, f"after step {record.step}")


def _short(record: EvaluationRecord) -> str:
    return f"step {record.step}" if record.when == "during" else record.when
