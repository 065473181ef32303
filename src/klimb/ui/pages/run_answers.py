"""What changed per problem, as HTML: counts beside what luck would show, a picture, and a row for each problem.

Answers before and after training side by side, as HTML in which no text of a model acts or hides.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord
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
    mean_change,
)
from klimb.ui.escaping import escaped, escaped_part
from klimb.ui.pages.run_tiles import change_text, is_clear

SHOWN: tuple[tuple[Kind, int], ...] = (("learned", 3), ("lost", 3), ("never", 2), ("between", 1), ("always", 1))
"""How many problems of each kind are shown."""


SHORT = 500
"""Characters of a text that stand open."""


LONGEST = 4000
"""Characters of a text that the page holds."""


MOST_ANSWERS = 3


KIND_CSS: dict[Kind, str] = {"learned": "good", "lost": "bad", "never": "warning", "between": "quiet", "always": "note"}


def chosen(changes: Sequence[PromptChange]) -> list[PromptChange]:
    """Return the first few problems of each kind, in the evaluation's own order: none is picked for its text."""
    return [change for kind, count in SHOWN for change in [part for part in changes if part.kind == kind][:count]]


def samples_html(changes: Sequence[PromptChange], *, is_accuracy: bool) -> str:
    """Return the chosen problems with their answers; empty without any."""
    return "".join(_sample(change, is_accuracy=is_accuracy) for change in chosen(changes))


def answers_html(record: EvaluationRecord, *, most: int = 6) -> str:
    """Answers of one evaluation alone, for a run that has no second one."""
    return "".join(
        f'<article class="sample">{_question(problem)}{_answers(problem, "answer", is_accuracy=record.is_accuracy)}'
        "</article>"
        for problem in record.problems[:most]
    )


def text_html(text: str, *, short: int = SHORT, longest: int = LONGEST) -> str:
    """Return the text in a box; what is beyond `short` characters opens on demand, what is beyond `longest` is counted.

    A text that is all whitespace or empty says so.
    """
    if not text.strip():
        return '<pre class="quiet">(empty)</pre>'
    if len(text) <= short:
        return f'<pre dir="auto">{escaped(text)}</pre>'
    beyond = f"; {len(text) - longest:,} characters are not on this page" if len(text) > longest else ""
    return (
        f'<pre dir="auto">{escaped(text[:short])} …</pre>'
        f"<details><summary>cut: all {min(len(text), longest):,} of {len(text):,} characters{beyond}</summary>"
        f'<pre dir="auto">{escaped_part(text, limit=longest)}</pre></details>'
    )


def score_html(values: Sequence[float], *, is_accuracy: bool) -> str:
    """`3 of 4 correct`, or the mean and range of rewards."""
    if not values:
        return '<span class="score quiet">not scored</span>'
    if is_accuracy:
        right = round(sum(values))
        css = "good" if 2 * right > len(values) else "bad" if right == 0 else "warning"
        return f'<span class="score {css}">{right} of {len(values)} correct</span>'
    mean = sum(values) / len(values)
    span = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
    return f'<span class="score">reward {mean:.3g}{span}</span>'


def _sample(change: PromptChange, *, is_accuracy: bool) -> str:
    before = _answers(change.before, "before", is_accuracy=is_accuracy)
    after = _answers(change.after, "after", is_accuracy=is_accuracy)
    return (
        f'<article class="sample">{_question(change.before, kind=change.kind)}'
        f'<div class="pair"><div>{before}</div><div>{after}</div></div></article>'
    )


def _question(problem: ProblemRecord, *, kind: Kind | None = None) -> str:
    chip = f'<span class="chip {KIND_CSS[kind]}">{kind}</span>' if kind else ""
    name = f'<span class="quiet small">{escaped_part(problem.problem_id, limit=120)}</span>'
    return f"<h3>{chip}{name}</h3>{text_html(problem.question)}"


def _answers(problem: ProblemRecord, when: str, *, is_accuracy: bool) -> str:
    """Return the first answer open, the others on demand; which value is whose is told only if all were scored."""
    is_complete = len(problem.values) == len(problem.answers)
    marks = [_mark(value, is_accuracy=is_accuracy) for value in problem.values] if is_complete else []
    of_first = f" · {marks[0]}" if len(marks) > 1 else ""
    head = f'<p class="small">{when}: {score_html(problem.values, is_accuracy=is_accuracy)}{of_first}</p>'
    if not problem.answers:
        return head
    first, *others = problem.answers[:MOST_ANSWERS]
    if not others:
        return f"{head}{text_html(first)}"
    hidden = len(problem.answers) - MOST_ANSWERS
    more = f"{len(others)} more answers{f', and {hidden} not on this page' if hidden > 0 else ''}"
    rest = "".join(
        f"{mark}{text_html(answer)}" for mark, answer in zip_longest(marks[1:MOST_ANSWERS], others, fillvalue="")
    )
    return f"{head}{text_html(first)}<details><summary>{more}</summary>{rest}</details>"


def _mark(value: float, *, is_accuracy: bool) -> str:
    if not is_accuracy:
        return f'<span class="small quiet nowrap">this one {value:.3g}</span>'
    css, word = ("good", "✓ correct") if value > 0 else ("bad", "✗ wrong")
    return f'<span class="small nowrap">this one <span class="{css}">{word}</span></span>'


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


BUBBLES_WIDTH = 300.0


BUBBLE_PITCH = 50.0


def prompts_html(
    changes: Sequence[PromptChange],
    first: EvaluationRecord,
    second: EvaluationRecord,
    history: Sequence[EvaluationRecord],
) -> str:
    """Return the whole part for one run; `history` holds all evaluations in order."""
    return (
        f"<p>{_summary(changes, first, second)}</p>"
        f'<div class="pair">{_counts(changes, is_accuracy=first.is_accuracy)}{_bubbles(changes)}</div>'
        f"{_table(changes, history, is_accuracy=first.is_accuracy)}"
    )


def counts_line(changes: Sequence[PromptChange], *, is_accuracy: bool) -> str:
    """`12 learned (0.4 by luck), 0 lost (0.3), …` as plain text, for a table of several runs."""
    counts, luck = counted(changes), expected_by_luck(changes, is_accuracy=is_accuracy)
    return ", ".join(f"{counts[kind]} {kind} ({luck[kind]:.1f} by luck)" for kind in ("learned", "lost"))


def _summary(changes: Sequence[PromptChange], first: EvaluationRecord, second: EvaluationRecord) -> str:
    change = mean_change(first, second)
    assert change is not None  # changes hold a problem, and so do the evaluations
    verdict = (
        "which is more than the choice of problems explains"
        if is_clear(change)
        else "which the choice of problems may explain"
    )
    shown = escaped(change_text(change, is_accuracy=first.is_accuracy))
    return (
        f"The same {len(changes):,} problems were answered {_when(first)} and {_when(second)}: mean change "
        f'<span class="score">{shown}</span> (95 % interval, paired by problem), {verdict}.'
    )


def _counts(changes: Sequence[PromptChange], *, is_accuracy: bool) -> str:
    counts, luck = counted(changes), expected_by_luck(changes, is_accuracy=is_accuracy)
    rows = "".join(
        f'<tr><th scope="row"><span class="nowrap {KIND_CSS[kind]}">{kind}</span></th>'
        f'<td class="number">{counts[kind]:,}</td>'
        f'<td class="number quiet">{luck[kind]:.1f}</td><td class="quiet">{MEANINGS[kind]}</td></tr>'
        for kind in KINDS
    )
    heads = (
        '<th scope="col"></th><th scope="col" class="number">problems</th>'
        '<th scope="col" class="number">by luck</th><th scope="col">meaning</th>'
    )
    return (
        f"<div><table><caption>By luck: how many there would be had training changed nothing, from exchanging each "
        f"problem's answers at random.</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _bubbles(changes: Sequence[PromptChange]) -> str:
    """Before across, after up: each circle's area is the number of problems there; above the diagonal is better."""
    cells = Counter((_level(change.low), _level(change.high)) for change in changes)
    most = max(cells.values())
    left, top = 46.0, 6.0
    size = BUBBLE_PITCH * LEVELS

    def place(level: int) -> float:
        return BUBBLE_PITCH * (level + 0.5)

    parts = [f'<line class="grid" x1="{left:g}" y1="{top + size:g}" x2="{left + size:g}" y2="{top:g}"/>']
    for (low, high), count in sorted(cells.items()):
        css = "good" if high > low else "bad" if high < low else "c6"
        x, y = left + place(low), top + size - place(high)
        radius = max(2.0, 0.48 * BUBBLE_PITCH * math.sqrt(count / most))
        parts.append(f'<circle class="band {css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{count}</text>')
    for level in range(LEVELS):
        label = f"{100 * level / (LEVELS - 1):.0f} %"
        parts.append(
            f'<text x="{left + place(level):.1f}" y="{top + size + 14:.1f}" text-anchor="middle">{label}</text>'
        )
        parts.append(
            f'<text x="{left - 4:.1f}" y="{top + size - place(level) + 4:.1f}" text-anchor="end">{label}</text>'
        )
    parts.append(f'<text x="{left + size:.1f}" y="{top + size + 30:.1f}" text-anchor="end">mean before</text>')
    height = top + size + 36
    described = "; ".join(
        f"{count} from level {low} to level {high} of {LEVELS - 1}" for (low, high), count in sorted(cells.items())
    )
    return (
        '<figure><figcaption>Problems before and after <span class="unit">up: mean after</span></figcaption>'
        f'<svg class="bubbles" viewBox="0 0 {BUBBLES_WIDTH:g} {height:g}" role="img">'
        "<title>Problems before and after</title>"
        f"<desc>{described}</desc>{''.join(parts)}</svg></figure>"
    )


def _level(share: float) -> int:
    return round(min(1.0, max(0.0, share)) * (LEVELS - 1))


def _table(changes: Sequence[PromptChange], history: Sequence[EvaluationRecord], *, is_accuracy: bool) -> str:
    """Every problem with its mean at each evaluation; the ones that got worse come first."""
    shown = _spread(history)
    ordered = sorted(changes, key=lambda change: (ORDER.index(change.kind), change.change))
    heads = "".join(f'<th scope="col" class="number">{escaped(_short(made))}</th>' for made in shown)
    means = [_means(made) for made in shown]
    rows = "".join(_row(change, means, is_accuracy=is_accuracy) for change in ordered[:MOST_ROWS])
    left_out = len(ordered) - MOST_ROWS
    note = f" {left_out:,} more are in evaluations.jsonl." if left_out > 0 else ""
    return (
        f"<details><summary>Each of the {len(changes):,} problems at each evaluation</summary>"
        f'<div class="scroll"><table><caption>Mean of its answers. Lost ones first.{note}</caption><thead><tr>'
        f'<th scope="col" class="wide">problem</th><th scope="col"></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _row(change: PromptChange, means: Sequence[dict[str, float]], *, is_accuracy: bool) -> str:
    name = change.before.problem_id
    cells = "".join(f'<td class="number">{_cell(part.get(name), is_accuracy=is_accuracy)}</td>' for part in means)
    question = escaped_part(
        " ".join(change.before.question[: 4 * QUESTION_CHARACTERS].split()), limit=QUESTION_CHARACTERS
    )
    return (
        f"<tr><td>{question or escaped_part(name, limit=40)}</td>"
        f'<td><span class="nowrap {KIND_CSS[change.kind]}">{change.kind}</span></td>{cells}</tr>'
    )


def _cell(mean: float | None, *, is_accuracy: bool) -> str:
    if mean is None:
        return '<span class="cell quiet">–</span>'
    if not is_accuracy:
        return f'<span class="cell">{mean:.3g}</span>'
    heat = min(3, int(mean * 4))
    return f'<span class="cell heat{heat}">{100 * mean:.0f} %</span>'


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
