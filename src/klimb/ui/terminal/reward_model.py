"""A reward model in a terminal: the facts of its training, what held-out judgements say, and the verdict."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from klimb.findings.reward_model import RewardModelReport
from klimb.ui.pages.reward_model import sentence_of
from klimb.ui.statuses import LOOKS
from klimb.ui.terminal.audit import print_block
from klimb.ui.text import printable

LONG = 1000


def print_reward_model(console: Console, report: RewardModelReport, *, facts: Sequence[tuple[str, str]]) -> None:
    """Print facts, findings and the verdict."""
    width = max((len(label) for label, _ in facts), default=0) + 2
    for label, value in facts:
        console.print(Text.assemble((f"{label:<{width}}", "dim"), printable(value, limit=LONG)), soft_wrap=True)
    for block in report.blocks:
        print_block(console, block)
    verdict = report.verdict
    console.print()
    console.print(Text(sentence_of(report), style=LOOKS[verdict.status].style), soft_wrap=True)
    for line in (verdict.title, verdict.advice):
        if line:
            console.print(Text(printable(line, limit=LONG), style="dim"), soft_wrap=True)
