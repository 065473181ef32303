"""What a deployment decided, in a terminal: who answers, and why each candidate was promoted or not."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.ui.text import printable

LONG = 2000


STYLES = {"promoted": "green", "trial": "cyan", "rejected": "yellow", "stopped": "red", "rolled back": "magenta"}


def print_deployment(console: Console, facts: Mapping[str, str], decisions: Sequence[Mapping[str, Any]]) -> None:
    """Print who answers, then a line for each decision.

    Args:
        console: where it goes.
        facts: name -> what is the case now.
        decisions: rows of `decisions.jsonl`, the earliest first.
    """
    for name, fact in facts.items():
        console.print(Text.assemble((f"{name:<10} ", "dim"), printable(fact, limit=LONG)), soft_wrap=True)
    if not decisions:
        console.print(Text("nothing has been decided yet", style="dim"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("when", "candidate", "decision", "ratings", "why"):
        table.add_column(column, overflow="fold", justify="right" if column == "ratings" else "left")
    for row in decisions:
        outcome = str(row["outcome"])
        table.add_row(
            datetime.fromtimestamp(float(row["time"])).strftime("%Y-%m-%d %H:%M"),
            Text(printable(str(row["candidate"]))),
            Text(printable(outcome), style=STYLES.get(outcome, "")),
            f"{int(row['num_ratings']):,}" if row["num_ratings"] else "",
            Text(printable(str(row["reason"]), limit=LONG)),
        )
    console.print(table)
