"""Findings in a terminal: one line each, with evidence and advice below what asks for attention."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from klimb.workbench.findings.finding import Finding, Severity
from klimb.workbench.text import printable

STYLES: Mapping[Severity, str] = {"bad": "bold red", "warning": "yellow", "note": "cyan", "good": "green"}
LABEL_WIDTH = 10
"""The longest severity, two spaces before it and one behind."""
LONG = 2000


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Prints them in their order; says so if there are none."""
    if not findings:
        console.print(Text("no findings: too few steps, or nothing out of the ordinary", style="dim"), soft_wrap=True)
        return
    for finding in findings:
        label = Text(f"  {finding.severity}".ljust(LABEL_WIDTH), style=STYLES[finding.severity])
        title = Text(printable(finding.title, limit=LONG), style="bold" if finding.advice else "")
        console.print(Text.assemble(label, title, (f"  {finding.key}", "dim")), soft_wrap=not console.is_terminal)
        _below(console, finding.evidence, style="")
        if finding.advice:
            _below(console, f"try: {finding.advice}", style="dim")


def _below(console: Console, words: str, *, style: str) -> None:
    text = Text(printable(words, limit=LONG), style=style)
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, LABEL_WIDTH)))
    else:
        console.print(Text.assemble(" " * LABEL_WIDTH, text), soft_wrap=True)
