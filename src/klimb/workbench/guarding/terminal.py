"""What a person reads of the guard when a run is over."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.workbench.text import printable

NAMES = {
    "guard/perplexity": "perplexity of the text",
    "guard/general_mean": "general problems, score",
    "guard/refusal_fraction": "general answers, refusals",
    "guard/empty_fraction": "general answers, empty",
    "guard/repetition_fraction": "general answers, in a loop",
    "guard/rollout_refusal_fraction": "rollouts, refusals",
    "guard/rollout_empty_fraction": "rollouts, empty",
    "guard/rollout_repetition_fraction": "rollouts, in a loop",
    "guard/format_valid_fraction": "rollouts, in the form asked for",
}
"""Metric -> how it is called here; sets of general problems follow by their own name."""
GENERAL = "guard/general/"
LONGEST_REASON = 500


def report_guard(console: Console, path: Path) -> None:
    """A table of the base metrics before and after, and what the guard did; nothing if the run had no guard.

    Args:
        console: where it is shown.
        path: of guard.json in the run's folder.
    """
    if not path.is_file():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    before, after = stored["before"], stored["after"]
    table = Table(title="base metrics: what the model could do before", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right", style="bold")
    for metric, label in _rows(before):
        table.add_row(Text(label), _number(metric, before), _number(metric, after))
    if table.row_count:
        console.print(table)
    for event in stored["events"]:
        console.print(Text(_in_words(event), style="yellow"), soft_wrap=True)


def guard_facts(section: Any) -> list[tuple[str, str]]:
    """The guard in one labelled line, for the beginning of a run; none without the section `[guard]`."""
    if section is None:
        return []
    sets = ", ".join(section.general) or "no general problems"
    text = "no text" if section.text == "none" else f"text {section.text}"
    return [("guard", f"{text}, {sets} · every {section.every_steps} steps · beyond a limit: {section.action}")]


def _rows(before: Mapping[str, Any]) -> list[tuple[str, str]]:
    sets = [
        (name, f"general problems, {printable(name[len(GENERAL) :])}") for name in before if name.startswith(GENERAL)
    ]
    rows = [(name, label) for name, label in NAMES.items() if name in before]
    return rows if len(sets) < 2 else rows + sets


def _number(metric: str, values: Mapping[str, Any]) -> str:
    if metric not in values:
        return ""
    value = values[metric]
    if value is None:
        return "not finite"
    return f"{value:.2f}" if metric == "guard/perplexity" else f"{value:.1%}"


def _in_words(event: Mapping[str, Any]) -> str:
    done = {
        "warn": "a warning",
        "stop": "the run was stopped",
        "rollback": f"went back to step {event.get('to_step')}",
    }.get(event["action"], str(event["action"]))
    return f"guard, step {event['step']}: {done}: {printable(str(event['reason']), limit=LONGEST_REASON)}"
