"""What changed per problem, as HTML: counts beside what luck would show, a picture, and a row for each problem."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from klimb.training import EvaluationRecord
from klimb.workbench.audit_escaping import escaped, escaped_part
from klimb.workbench.report.prompts import (
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
from klimb.workbench.report.samples import KIND_CSS
from klimb.workbench.report.tiles import change_text, is_clear

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
    """The whole part for one run; `history` holds all evaluations in order."""
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
