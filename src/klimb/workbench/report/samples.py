"""Answers before and after training side by side, as HTML in which no text of a model acts or hides."""

from collections.abc import Sequence
from itertools import zip_longest

from klimb.training import EvaluationRecord, ProblemRecord
from klimb.workbench.audit_escaping import escaped, escaped_part
from klimb.workbench.report.prompts import Kind, PromptChange

SHOWN: tuple[tuple[Kind, int], ...] = (("learned", 3), ("lost", 3), ("never", 2), ("between", 1), ("always", 1))
"""How many problems of each kind are shown."""
SHORT = 500
"""Characters of a text that stand open."""
LONGEST = 4000
"""Characters of a text that the page holds."""
MOST_ANSWERS = 3
KIND_CSS: dict[Kind, str] = {"learned": "good", "lost": "bad", "never": "warning", "between": "quiet", "always": "note"}


def chosen(changes: Sequence[PromptChange]) -> list[PromptChange]:
    """The first few problems of each kind, in the evaluation's own order: none is picked for its text."""
    return [change for kind, count in SHOWN for change in [part for part in changes if part.kind == kind][:count]]


def samples_html(changes: Sequence[PromptChange], *, is_accuracy: bool) -> str:
    """The chosen problems with their answers; empty without any."""
    return "".join(_sample(change, is_accuracy=is_accuracy) for change in chosen(changes))


def answers_html(record: EvaluationRecord, *, most: int = 6) -> str:
    """Answers of one evaluation alone, for a run that has no second one."""
    return "".join(
        f'<article class="sample">{_question(problem)}{_answers(problem, "answer", is_accuracy=record.is_accuracy)}'
        "</article>"
        for problem in record.problems[:most]
    )


def text_html(text: str, *, short: int = SHORT, longest: int = LONGEST) -> str:
    """The text in a box; what is beyond `short` characters opens on demand, what is beyond `longest` is counted.

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
    """The first answer drawn open, the others on demand; which value is whose is told only if all were scored."""
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
