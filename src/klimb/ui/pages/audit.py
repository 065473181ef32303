"""The audit as one page of HTML: no script, nothing loaded from elsewhere, every text of the data escaped.

The rows that show what decided, for the audit's page: text, reward, and token by token log μ beside log π.
"""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from importlib.resources import files

from klimb import __version__
from klimb.findings.audit.report import AuditReport, Block, Example, Verdict, VerdictKind
from klimb.findings.finding import STATUSES, Finding, Status
from klimb.ui.audit_figures import figure_svg
from klimb.ui.escaping import escaped, escaped_part, escaped_token

MOST_CHARACTERS = 4000


MOST_TOKENS = 400


APART = math.log(2)
"""Nats. Rows in which w = π/μ is outside [0.5, 2], the usual mask band, are marked."""


NO_TEXT = "[no text]"
"""A control token, such as the one that ends a response, decodes to nothing."""


APART_CLASS = ' class="apart"'


def examples_section(examples: Sequence[Example]) -> str:
    """All examples; empty without any."""
    if not examples:
        return ""
    shown = "".join(_example(number, example) for number, example in enumerate(examples, start=1))
    return f'<section aria-labelledby="examples"><h2 id="examples">Rows that show it</h2>{shown}</section>'


def _example(number: int, example: Example) -> str:
    reward = "no reward" if example.reward is None else f"reward {example.reward:g}"
    return (
        f"<article><h3>{number}. {escaped_part(example.sample_id, limit=120)}</h3>"
        f'<p>{escaped(example.note)} <span class="quiet">({reward})</span></p>'
        f'<p class="quiet">prompt</p><pre dir="auto">{escaped_part(example.prompt, limit=MOST_CHARACTERS)}</pre>'
        f'<p class="quiet">response</p><pre dir="auto">{escaped_part(example.response, limit=MOST_CHARACTERS)}</pre>'
        f"{_tokens(example)}</article>"
    )


def _tokens(example: Example) -> str:
    length = max(len(example.tokens), len(example.log_mu), len(example.log_pi))
    if length == 0:
        return '<p class="quiet">No tokens were recorded.</p>'
    rows = "".join(_token_row(example, index) for index in range(min(length, MOST_TOKENS)))
    more = f" The first {MOST_TOKENS} of {length:,}." if length > MOST_TOKENS else ""
    heads = (
        '<th scope="col">token</th><th scope="col" class="number">log μ</th><th scope="col" class="number">log π</th>'
    )
    return (
        f"<details><summary>{length:,} tokens with log μ and log π</summary>"
        f'<table class="tokens"><caption>Nats. Marked * where π/μ is outside [0.5, 2].{more}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _token_row(example: Example, index: int) -> str:
    token = (escaped_token(example.tokens[index]) or NO_TEXT) if index < len(example.tokens) else "–"
    mu, pi = _at(example.log_mu, index), _at(example.log_pi, index)
    is_apart = mu is not None and pi is not None and not abs(pi - mu) <= APART
    return (
        f"<tr{APART_CLASS if is_apart else ''}><td>{token}{' *' if is_apart else ''}</td>"
        f'<td class="number">{_nats(mu)}</td><td class="number">{_nats(pi)}</td></tr>'
    )


def _at(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}".replace("-", "−")


PAGE_MARK = '<meta name="generator" content="klimb audit">'
"""Stands in every page made here; a file with it may be replaced by a newer one."""


STATUS_WORDS: dict[Status, str] = {
    "bad": "bad",
    "warning": "warning",
    "unknown": "not known",
    "note": "note",
    "good": "good",
}


STATUS_SIGNS: dict[Status, str] = {"bad": "✗", "warning": "!", "unknown": "?", "note": "·", "good": "✓"}


_WHOLE = re.compile(r"(?<![\w-])--[a-z]+(-[a-z]+)*|\d[\d.,]* %")
"""Of an escaped text: an option such as --is-logging-model, or a percentage."""


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
    style = files("klimb.ui.pages").joinpath("audit.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            _head_of_page(report, notes),
            verdict_section(report.verdict),
            _overview(report.blocks),
            *(block_section(block, decided_by=report.verdict.decided_by) for block in report.blocks),
            examples_section(report.verdict.examples),
            _run_section(run_file, run_path),
            _footer(facts),
        ]
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{PAGE_MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_security_policy(style)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n'
        f"<title>Audit of {escaped(report.data)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def content_security_policy(style: str) -> str:
    """Return a policy that lets a browser load nothing and run nothing, and apply this one style sheet."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def verdict_section(verdict: Verdict) -> str:
    """Return the verdict as a card: what, why, what to do."""
    status = VERDICT_STATUS[verdict.kind]
    return (
        f'<section class="verdict {status}" aria-labelledby="verdict">'
        f'<p class="label">{STATUS_SIGNS[status]} Verdict: {escaped(verdict.kind)}</p>'
        f'<h2 id="verdict">{escaped(verdict.title)}</h2><p>{escaped(verdict.reason)}</p>'
        f"<dl>{''.join(f'<dt>{label}</dt><dd>{value}</dd>' for label, value in _verdict_facts(verdict))}</dl></section>"
    )


def _verdict_facts(verdict: Verdict) -> list[tuple[str, str]]:
    """Label and HTML of what belongs to the verdict."""
    recipes = ", ".join(f"<code>{escaped(name)}</code>" for name in verdict.recipes)
    rows = [
        ("Decided by", escaped(verdict.decided_by)),
        ("Recipes that fit", f"{recipes}{' (the first is recommended)' if len(verdict.recipes) > 1 else ''}"),
        (
            "Expected 95 % interval",
            escaped(interval_text(verdict)),
        ),
        ("Next", escaped(verdict.next_action)),
    ]
    return [(label, value) for label, value in rows if value]


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


def block_section(block: Block, *, decided_by: str = "") -> str:
    """One block: its findings as a table, its notes, its figures."""
    parts = [f'<section aria-labelledby="{_anchor(block)}"><h2 id="{_anchor(block)}">{escaped(block.title)}</h2>']
    if block.findings:
        rows = "".join(_finding_row(finding, is_decisive=finding.name == decided_by) for finding in block.findings)
        heads = "".join(
            f'<th scope="col" role="columnheader">{head}</th>'
            for head in ("check", "result", "status", "threshold", "what it means")
        )
        parts.append(
            f'<table class="findings" role="table"><thead role="rowgroup"><tr role="row">{heads}</tr></thead>'
            f'<tbody role="rowgroup">{rows}</tbody></table>'
        )
    if block.notes:
        parts.append(f"<ul>{''.join(f'<li>{escaped(note)}</li>' for note in block.notes)}</ul>")
    if block.figures:
        parts.append(f'<div class="figures">{"".join(_figures(block))}</div>')
    return "".join([*parts, "</section>"])


def _finding_row(finding: Finding, *, is_decisive: bool) -> str:
    mark = '<span class="decided">decided</span>' if is_decisive else ""
    source = f'<span class="source">{escaped(finding.source)}</span>' if finding.source else ""
    return (
        f'<tr role="row"><th scope="row" role="rowheader">{escaped(finding.name)}{mark}</th>'
        f'<td role="cell" class="value">{_cell(finding.evidence)}</td>'
        f'<td role="cell" class="state">{status_html(finding.status)}</td>'
        f'<td role="cell" class="threshold">{_cell(finding.threshold)}{source}</td>'
        f'<td role="cell">{_cell(finding.title)}</td></tr>'
    )


def _cell(text: str) -> str:
    """Return the text, with options and percentages that no line break tears apart."""
    return _WHOLE.sub(r'<span class="whole">\g<0></span>', escaped(text))


def status_html(status: Status) -> str:
    """Sign and word in the status's colour."""
    return f'<span class="status {status}">{STATUS_SIGNS[status]} {STATUS_WORDS[status]}</span>'


def _figures(block: Block) -> list[str]:
    return [
        f"<figure><figcaption>{escaped(figure.title)}"
        f"{f'<span>{escaped(figure.note)}</span>' if figure.note else ''}</figcaption>"
        f"{figure_svg(figure, name=f'{_anchor(block)}-{index}')}</figure>"
        for index, figure in enumerate(block.figures)
    ]


def _anchor(block: Block) -> str:
    return "block-" + "".join(
        character if character.isascii() and character.isalnum() else "-" for character in block.name
    )


def _head_of_page(report: AuditReport, notes: Sequence[str]) -> str:
    listed = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    return (
        f"<header><h1>Audit of {escaped(report.data)}</h1>"
        f'<p class="quiet">{report.num_samples:,} samples in {report.num_groups:,} groups</p>'
        f"{f'<ul>{listed}</ul>' if notes else ''}</header>"
    )


def _overview(blocks: Sequence[Block]) -> str:
    items = "".join(
        f'<li>{status_html(worst_status(block.findings))} <a href="#{_anchor(block)}">{escaped(block.title)}</a></li>'
        for block in blocks
    )
    return f'<nav aria-label="Blocks"><ul>{items}</ul></nav>'


def _run_section(run_file: str, run_path: str) -> str:
    if not run_file:
        return ""
    command = f"klimb train {escaped(run_path)}"
    place = (
        f"<p>Start it with <code>{command}</code>; <code>{command} --dry-run</code> tells time and memory first.</p>"
        if run_path
        else ""
    )
    return f'<section><h2>A run to start from</h2>{place}<pre class="copy">{escaped(run_file)}</pre></section>'


def _footer(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escaped(label)}</dt><dd>{escaped(value)}</dd>" for label, value in facts)
    return f"<footer>klimb {escaped(__version__)}{f'<dl>{rows}</dl>' if facts else ''}</footer>"
