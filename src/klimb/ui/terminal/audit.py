"""The audit in a terminal: what it is good for on one screen; below, one line a finding, and the verdict."""

from collections.abc import Iterator
from textwrap import wrap

from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from klimb.findings.audit.report import AuditReport, Block, Example, Use, Verdict
from klimb.findings.finding import Finding
from klimb.ui.audit_facts import ANSWER_STATUS, extremes, facts_of
from klimb.ui.pages.audit import VERDICT_STATUS, interval_text
from klimb.ui.statuses import LOOKS
from klimb.ui.text import printable

STATUS_WIDTH = 12
"""Two spaces, the longest status word and a gap."""


NAME_WIDTH = 48


VALUE_ROOM = 28
"""Columns left for the value where the line is short of them; both wrap."""


LONG = 2000


SHOWN_CHARACTERS = 60


USE_INDENT = 9
"""The column of an answer, `partly` and its gaps."""


FACT_INDENT = 10


NARROWEST = 20
"""Columns of text that are left beside a label however narrow the terminal is."""


LEAD = " → "
"""Before the next step."""


def print_audit(console: Console, report: AuditReport, *, run_path: str = "", is_brief: bool = False) -> None:
    """Print the first screen, every finding of every block, and the verdict in a panel.

    Args:
        console: where to.
        report: what is shown.
        run_path: where its run file was written.
        is_brief: the first screen alone.
    """
    counts = f": {report.num_samples:,} samples in {report.num_groups:,} groups"
    console.print(Text.assemble(("audit of ", "bold"), (printable(report.data), "bold"), counts), soft_wrap=True)
    for line in first_screen(report, width=console.width):
        console.print(line, soft_wrap=True)
    console.print()
    if is_brief:
        return
    console.print(Text("The technical part", style="bold underline"))
    for block in report.blocks:
        print_block(console, block)
    console.print()
    console.print(verdict_panel(report.verdict, run_path=run_path))


def first_screen(report: AuditReport, *, width: int) -> Iterator[Text]:
    """Yield the lines for the person whose data it is: uses with the way out, counts, extremes, what to collect.

    What was said of a use before is not said again of the next.
    """
    said: dict[str, str] = {}
    for use in report.uses:
        yield from _use_lines(use, said, width=width)
    shown = facts_of(report)
    shown += [
        (heading.split()[0].lower(), f"{examples[0].prompt} → {examples[0].response}")
        for heading, examples in extremes(report)
    ]
    # One line each, so that all of it is on one screen; the page has the whole.
    for label, text in shown:
        cut = printable(text, limit=max(NARROWEST, width - FACT_INDENT))
        yield Text.assemble((f"{label:<{FACT_INDENT - 1}} ", "dim"), cut)
    if report.collecting.in_words not in said:
        yield from _labelled(
            f"{'next':<{FACT_INDENT - 1}} ", _line(report.collecting.in_words), width=width, style="cyan"
        )


def _use_lines(use: Use, said: dict[str, str], *, width: int) -> Iterator[Text]:
    style = LOOKS[ANSWER_STATUS[use.answer]].style
    reason = f"as for “{said[use.reason]}”" if use.reason in said else use.reason
    text = _line(f"{use.name}: {reason}")
    yield from _labelled(f"{use.answer:<{USE_INDENT - 1}} ", text, width=width, label_style=style)
    if use.next_step not in said:
        yield from _labelled(f"{LEAD:>{USE_INDENT}}", _line(use.next_step), width=width, style="cyan")
    said.setdefault(use.reason, use.name)
    said.setdefault(use.next_step, use.name)


def _labelled(label: str, text: str, *, width: int, label_style: str = "dim", style: str = "") -> Iterator[Text]:
    """Yield the text beside its label. A word longer than the line stays whole, so that a command can be copied."""
    room = max(NARROWEST, width - len(label))
    for line in wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]:
        yield Text.assemble((label, label_style), (line, style))
        label = " " * len(label)


def print_block(console: Console, block: Block) -> None:
    """Print the block's title and its findings; those that ask for attention with threshold and meaning below."""
    console.print()
    console.print(Text(printable(block.title), style="bold"))
    longest = max((len(printable(finding.name)) for finding in block.findings), default=0)
    name_width = min(longest, NAME_WIDTH, max(8, console.width - STATUS_WIDTH - 2 - VALUE_ROOM))
    for finding in block.findings:
        console.print(finding_row(finding, name_width=name_width))
        detail = _detail(finding)
        if detail:
            console.print(Padding(Text(detail, style="dim"), (0, 0, 0, STATUS_WIDTH)))


def finding_row(finding: Finding, *, name_width: int) -> Table:
    """`  bad       shift of log μ  +1 token`; a long name or value goes on below, so that no number is cut off."""
    row = Table.grid()
    row.add_column(width=STATUS_WIDTH, no_wrap=True)
    row.add_column(width=name_width + 2, overflow="fold")
    row.add_column(overflow="fold")
    row.add_row(
        Text(f"  {LOOKS[finding.status].word}", style=LOOKS[finding.status].style),
        Padding(Text(printable(finding.name, limit=LONG), overflow="fold"), (0, 2, 0, 0)),
        Text(printable(finding.evidence, limit=LONG), style="bold", overflow="fold"),
    )
    return row


def _detail(finding: Finding) -> str:
    """Return what a finding that is not good means, and what it was held against."""
    if finding.status == "good":
        return ""
    meaning = printable(finding.title, limit=LONG)
    threshold = printable(finding.threshold, limit=LONG)
    return f"{meaning} (threshold: {threshold})" if threshold else meaning


def verdict_panel(verdict: Verdict, *, run_path: str = "") -> Panel:
    """Return what the data is good for: reason, deciding check, rows that show it, interval, what to type."""
    style = LOOKS[VERDICT_STATUS[verdict.kind]].style
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    rows = [
        ("decided by", Text(_line(verdict.decided_by))),
        ("recipes", Text(", ".join(_line(recipe) for recipe in verdict.recipes))),
        ("95 % interval", Text(_line(interval_text(verdict)))),
        *(("row", _example(example)) for example in verdict.examples),
        ("next", Text(_line(verdict.next_action), style="cyan")),
        *([("", Text(_line(f"klimb train {run_path} --dry-run tells time and memory first")))] if run_path else []),
    ]
    for label, value in rows:
        facts.add_row(label, value)
    head = [Text(_line(verdict.title), style="bold"), Text(_line(verdict.reason)), Text()]
    return Panel(Group(*head, facts), title=Text(verdict.kind, style=style), title_align="left", border_style=style)


def _line(text: str) -> str:
    return printable(text, limit=LONG)


def _example(example: Example) -> Text:
    reward = "no reward" if example.reward is None else f"reward {example.reward:g}"
    prompt = printable(example.prompt, limit=SHOWN_CHARACTERS)
    response = printable(example.response, limit=SHOWN_CHARACTERS) or "(empty)"
    return Text.assemble(
        f"{printable(example.sample_id, limit=40)} ({reward}): {_line(example.note)}\n",
        (f"{prompt} → {response}", "dim"),
    )
