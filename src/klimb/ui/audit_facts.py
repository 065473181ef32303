"""The counts of an audit in words: what a page and a terminal show of them alike."""

from klimb.findings.audit.evidence import counted
from klimb.findings.audit.personal import PERSONAL
from klimb.findings.audit.report import Answer, AuditReport, Contents, Counts, Example
from klimb.findings.finding import Status

ANSWER_STATUS: dict[Answer, Status] = {"yes": "good", "partly": "warning", "no": "bad"}
"""How an answer is coloured; the word always stands beside it."""


MOST_NAMED = 4
"""Sources, files or reasons that are named; of more, the rest is counted."""


def listed(counts: Counts, *, most: int = MOST_NAMED) -> str:
    """Return `a.jsonl 450, b.jsonl 7 and 3 more (12)`."""
    named = ", ".join(f"{name} {number:,}" for name, number in counts[:most])
    rest = counts[most:]
    return named + (f" and {len(rest):,} more ({sum(number for _, number in rest):,})" if rest else "")


def facts_of(report: AuditReport) -> list[tuple[str, str]]:
    """Return label and words of what there is; only what is known, and personal data only where there is some."""
    contents = report.contents
    answers = f"{contents.num_samples:,}, to {counted(contents.num_prompts, 'different question')}"
    facts = [("answers", answers), ("rated", _rated(contents)), ("from", _origins(contents))]
    if contents.files:
        facts.append(("files", listed(contents.files)))
    if contents.left_out:
        facts.append(
            ("left out", f"{counted(contents.num_left_out, 'row')} never came in: {listed(contents.left_out)}")
        )
    for finding in (each for block in report.blocks for each in block.findings if each.name == PERSONAL):
        if finding.status == "warning":
            facts.append(("personal", f"in {finding.evidence.partition(':')[0]} → {finding.advice}"))
    return facts


def _rated(contents: Contents) -> str:
    if contents.good_from is None:
        return "none"
    good = f"{contents.num_good:,} of them good ({contents.good_from:g} or more)"
    return f"{contents.num_rated:,} of {contents.num_samples:,}, {good}"


def _origins(contents: Contents) -> str:
    kinds = f"; imported as {listed(contents.kinds)}" if contents.kinds else ""
    return f"{listed(contents.sources)}{kinds}"


def extremes(report: AuditReport) -> list[tuple[str, tuple[Example, ...]]]:
    """Return the best and the worst rated answers with their headings; none where nothing is rated."""
    shown = [("Best rated", report.contents.best), ("Worst rated", report.contents.worst)]
    return [(heading, examples) for heading, examples in shown if examples]
