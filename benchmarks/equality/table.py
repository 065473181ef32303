"""The results as a table: for a terminal and as Markdown."""

from collections import Counter
from collections.abc import Sequence

from benchmarks.equality.comparing import AspectResult


def plain_line(result: AspectResult) -> str:
    """One result as a line of a terminal."""
    return f"{result.case:<28} {result.aspect:<20} {result.status:<13} {result.note}"


def summary_line(results: Sequence[AspectResult], seconds: float) -> str:
    """How many of each."""
    counts = Counter(result.status for result in results)
    counted = ", ".join(f"{count} {status}" for status, count in counts.items())
    cases = len({result.case for result in results})
    return f"{len(results)} aspects of {cases} cases: {counted or 'nothing'}; {seconds:.0f} s"


def markdown(results: Sequence[AspectResult], *, title: str, summary: str) -> str:
    """All results as a page."""
    rows = [f"| {result.case} | {result.aspect} | {_status(result)} | {_cell(result.note)} |" for result in results]
    head = ["| case | aspect | result | what |", "|---|---|---|---|"]
    return "\n".join([f"# {title}", "", summary, "", *head, *rows, ""])


def _status(result: AspectResult) -> str:
    return f"**{result.status}**" if result.status == "differs" else result.status


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
