"""A study in a terminal: what it says, then the main table."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from klimb.findings.study.analysis import MAIN, StudyStatistics
from klimb.findings.study.comparing import Comparison
from klimb.findings.study.verdicts import Units, budget_text, decision_text, units_of, verdicts
from klimb.ui.statuses import LOOKS
from klimb.ui.tables import named
from klimb.ui.text import printable

LONG = 2000


def print_study(console: Console, statistics: StudyStatistics) -> None:
    """Print the main table, every score with its interval, and below it the verdicts."""
    scores = statistics.scores
    title = f"study {scores.name}: {len(scores.runs)} runs, {budget_text(scores)} each"
    console.print(Text(printable(title), style="bold"), soft_wrap=True)
    console.print(main_table(statistics))
    for verdict in verdicts(statistics):
        console.print()
        console.print(Text(printable(verdict.title, limit=LONG), style=LOOKS[verdict.status].style))
        for sentence in verdict.evidence.splitlines():
            console.print(Padding(Text(printable(sentence, limit=LONG)), (0, 0, 0, 2)))


def main_table(statistics: StudyStatistics) -> Table:
    """Return a row for each method, the highest last score first."""
    units, baseline = units_of(statistics.scores), statistics.scores.baseline
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("method", overflow="fold")
    for name in (f"last, {units.name}", "best", f"against {printable(baseline)}", "runs"):
        table.add_column(name, justify="right", overflow="fold")
    against = {
        one.question.arm: _against(one, units)
        for one in statistics.main.comparisons
        if one.question.against.method == baseline and one.question.arm.method != baseline
    }
    for summary in (*statistics.ranked, *statistics.unranked):
        table.add_row(
            Text(printable(named(summary)), style="yellow" if "" in summary.not_ranked else ""),
            Text(units.scores(summary.scores[MAIN])),
            Text(units.score(summary.scores["best"].value)),
            against.get(summary.arm, Text("baseline" if summary.arm.method == baseline else "–", style="dim")),
            Text(
                f"{summary.num_runs} of {summary.num_runs + summary.num_lost}",
                style="yellow" if summary.num_lost else "",
            ),
        )
    return table


def _against(comparison: Comparison, units: Units) -> Text:
    decided = decision_text(comparison)
    style = {"ahead": "green", "behind": "red"}.get(decided, "dim")
    return Text(f"{units.difference(comparison.difference.value)} {decided}", style=style)
