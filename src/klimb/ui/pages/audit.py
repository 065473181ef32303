"""The audit as one page of HTML: what its template shows, prepared from the report.

The rows that show what decided are among it: text, reward, and token by token log μ beside log π.
"""

import math
from collections.abc import Sequence
from typing import Any

from klimb.findings.audit.report import AuditReport, Block, Example, Figure, Use, Verdict, VerdictKind
from klimb.findings.finding import STATUSES, Finding, Status
from klimb.ui.audit_facts import ANSWER_STATUS, extremes, facts_of
from klimb.ui.chart import Bars, Chart, Curve, Histogram
from klimb.ui.escaping import one_line
from klimb.ui.pages.frame import drawings, html_page
from klimb.ui.statuses import LOOKS

GENERATOR = "klimb audit"


MOST_CHARACTERS = 4000


MOST_TOKENS = 400


SHOWN_CHARACTERS = 300
"""Of the best and the worst answers; they are to be glanced at."""


APART = math.log(2)
"""Nats. Rows in which w = π/μ is outside [0.5, 2], the usual mask band, are marked."""


NO_TEXT = "[no text]"
"""A control token, such as the one that ends a response, decodes to nothing."""


VERDICT_STATUS: dict[VerdictKind, Status] = {
    "rl-with-correction": "good",
    "ratio-free-rl": "warning",
    "kto-or-dro": "warning",
    "behaviour-cloning": "warning",
    "collect-more": "bad",
}
"""How far the data carries: fully, in part, not yet. The verdict's title always stands beside the colour."""


def audit_page(
    report: AuditReport,
    *,
    run_file: str = "",
    run_path: str = "",
    facts: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return the whole page.

    Args:
        report: what is shown.
        run_file: text of the configuration that the verdict recommends.
        run_path: where that was written.
        facts: label and value of how the audit was made: the model, the seed, what was left out.
        notes: sentences a reader must know before the numbers.
    """
    return html_page(
        "audit.html",
        title=f"Audit of {report.data}",
        generator=GENERATOR,
        report=report,
        verdict_status=VERDICT_STATUS[report.verdict.kind],
        uses=[_use(use) for use in report.uses],
        contents=facts_of(report),
        extremes=extremes(report),
        interval=interval_text(report.verdict),
        blocks=[block_values(block, decided_by=report.verdict.decided_by) for block in report.blocks],
        examples=[_example(example) for example in report.verdict.examples],
        most_characters=MOST_CHARACTERS,
        shown_characters=SHOWN_CHARACTERS,
        run_file=run_file,
        run_path=run_path,
        facts=facts,
        notes=notes,
    )


def interval_text(verdict: Verdict) -> str:
    """`± 0.031; how that came about`, in units of the reward; a note that begins with the number stands alone."""
    if verdict.interval_note.startswith("±"):
        return verdict.interval_note
    number = "not known" if verdict.interval_half_width is None else f"± {verdict.interval_half_width:.2g}"
    return f"{number}; {verdict.interval_note}" if verdict.interval_note else number


def worst_status(findings: Sequence[Finding]) -> Status:
    """Return the status that a reader should see first; `unknown` when there are no findings."""
    present: list[Status] = [finding.status for finding in findings]
    return min(present, key=STATUSES.index) if present else "unknown"


def chart_of(figure: Figure) -> Chart:
    """Return the chart that shows the figure's numbers.

    Raises:
        ValueError: lengths do not fit the kind.
    """
    bars = Bars(labels=figure.labels, values=figure.y) if figure.kind == "bars" else None
    bins = Histogram(edges=figure.x, counts=figure.y) if figure.kind == "histogram" else None
    curves: tuple[Curve, ...] = ()
    if figure.kind in ("line", "points"):
        curves = (Curve(label=figure.title, x=figure.x, y=figure.y, mark=figure.kind),)
    return Chart(
        title=figure.title,
        unit=figure.y_label,
        axis=figure.x_label,
        note=figure.note,
        bars=bars,
        histogram=bins,
        curves=curves,
    )


def _use(use: Use) -> dict[str, Any]:
    status = ANSWER_STATUS[use.answer]
    return {
        "name": use.name,
        "status": status,
        "label": f"{LOOKS[status].sign} {use.answer}",
        "reason": use.reason,
        "recipes": use.recipes if use.answer != "no" else (),
        "next_step": use.next_step,
        "is_command": use.next_step.startswith("klimb "),
    }


def block_values(block: Block, *, decided_by: str) -> dict[str, Any]:
    """Return what the template `blocks.html` shows of a block."""
    anchor = "block-" + "".join(
        character if character.isascii() and character.isalnum() else "-" for character in block.name
    )
    return {
        "anchor": anchor,
        "title": block.title,
        "status": worst_status(block.findings),
        "findings": [_finding(finding, is_decisive=finding.name == decided_by) for finding in block.findings],
        "notes": block.notes,
        "drawings": drawings(anchor, [chart_of(figure) for figure in block.figures]),
    }


def _finding(finding: Finding, *, is_decisive: bool) -> dict[str, Any]:
    return {
        "name": finding.name,
        "is_decisive": is_decisive,
        "evidence": finding.evidence,
        "status": finding.status,
        "threshold": finding.threshold,
        "source": finding.source,
        "title": finding.title,
    }


def _example(example: Example) -> dict[str, Any]:
    length = max(len(example.tokens), len(example.log_mu), len(example.log_pi))
    return {
        "sample_id": example.sample_id,
        "note": example.note,
        "reward": "no reward" if example.reward is None else f"reward {example.reward:g}",
        "prompt": example.prompt,
        "response": example.response,
        "num_tokens": length,
        "more": f" The first {MOST_TOKENS} of {length:,}." if length > MOST_TOKENS else "",
        "rows": [_token_row(example, index) for index in range(min(length, MOST_TOKENS))],
    }


def _token_row(example: Example, index: int) -> dict[str, Any]:
    mu, pi = _at(example.log_mu, index), _at(example.log_pi, index)
    return {
        "token": (one_line(example.tokens[index]) or NO_TEXT) if index < len(example.tokens) else "–",
        "log_mu": _nats(mu),
        "log_pi": _nats(pi),
        "is_apart": mu is not None and pi is not None and not abs(pi - mu) <= APART,
    }


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")
