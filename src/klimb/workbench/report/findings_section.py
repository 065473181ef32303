"""The findings of a run as cards: what, how one can tell, what to try next."""

from collections import Counter
from collections.abc import Callable, Sequence

from klimb.workbench.audit_escaping import escaped
from klimb.workbench.findings import SEVERITIES, Finding, Severity

SIGNS: dict[Severity, str] = {"bad": "✗ bad", "warning": "! warning", "note": "· note", "good": "✓ good"}


def findings_html(findings: Sequence[Finding], *, link: Callable[[str], str]) -> str:
    """All findings, the most severe first; a sentence if there are none. `link` makes HTML of a metric's name."""
    if not findings:
        return '<p class="quiet">No rule found anything to say about this run.</p>'
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return "".join(_card(finding, link) for finding in ordered)


def findings_lines(found: Sequence[Sequence[Finding]]) -> str:
    """Each finding of runs that differ by their seed, in HTML, with how many of the runs have it."""
    counts: Counter[tuple[Severity, str]] = Counter(
        (finding.severity, finding.title) for findings in found for finding in findings
    )
    ordered = sorted(counts.items(), key=lambda item: SEVERITIES.index(item[0][0]))
    lines = [
        f'<span class="nowrap {severity}">{SIGNS[severity]}</span> {escaped(title)}'
        + (f' <span class="quiet nowrap">{count} of {len(found)} seeds</span>' if len(found) > 1 else "")
        for (severity, title), count in ordered
    ]
    return "<br>".join(lines) or '<span class="quiet">nothing</span>'


def _card(finding: Finding, link: Callable[[str], str]) -> str:
    advice = f"<p><strong>Try next:</strong> {escaped(finding.advice)}</p>" if finding.advice else ""
    metrics = " · ".join(link(name) for name in finding.metrics)
    return (
        f'<article class="finding {finding.severity}"><p class="label">{SIGNS[finding.severity]}</p>'
        f"<h3>{escaped(finding.title)}</h3><p>{escaped(finding.evidence)}</p>{advice}"
        f'<p class="quiet small metrics">{metrics}{" · " if metrics else ""}docs/findings.md, {escaped(finding.key)}'
        "</p></article>"
    )
