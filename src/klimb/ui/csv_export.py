"""The numbers behind a report as CSV: for spreadsheets, pandas and R."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from klimb.experience.atomic import replace_atomically
from klimb.findings.evaluations import interval_row
from klimb.findings.run.record import RunRecord
from klimb.ui.grouping import Group

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a cell that begins so."""


EVALUATION_COLUMNS = (
    "when",
    "step",
    "num_tokens_generated",
    "elapsed_seconds",
    "mean",
    "count",
    "num_errors",
    "num_samples",
    "greedy",
    "length_mean",
    "truncated_fraction",
)


def write_csv(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Write metrics.csv (a row a step), evaluations.csv and problems.csv (a row a problem); returns the paths.

    Each row names its run, the run's group and its seed. Texts that a spreadsheet would take for a formula begin with
    an apostrophe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"metrics": _metrics(groups), "evaluations": _evaluations(groups), "problems": _problems(groups)}
    return [_write(folder / f"{name}.csv", list(rows)) for name, rows in tables.items()]


def as_cell(value: Any) -> Any:
    """Return the value; a text that would be a formula gets an apostrophe in front.

    >>> as_cell("=1+1"), as_cell(-1.5), as_cell("What is 2+2?")
    ("'=1+1", -1.5, 'What is 2+2?')
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _named(groups: Sequence[Group]) -> Iterable[tuple[dict[str, Any], RunRecord]]:
    for group in groups:
        for run in group.runs:
            yield {"run": run.name, "group": group.label, "seed": run.seed}, run


def _metrics(groups: Sequence[Group]) -> Iterable[Mapping[str, Any]]:
    return ({**names, **row} for names, run in _named(groups) for row in run.rows)


def _evaluations(groups: Sequence[Group]) -> Iterable[Mapping[str, Any]]:
    for names, run in _named(groups):
        for made in run.evaluations:
            numbers = {column: getattr(made, column) for column in EVALUATION_COLUMNS}
            row = interval_row(made.interval)
            numbers |= {"low": row["low"], "high": row["high"], "interval_method": row["method"]}
            yield {**names, **numbers, **{f"pass_at_{k}": value for k, value in made.pass_at.items()}}


def _problems(groups: Sequence[Group]) -> Iterable[Mapping[str, Any]]:
    for names, run in _named(groups):
        for made in run.evaluations:
            for problem in made.problems:
                yield {
                    **names,
                    "when": made.when,
                    "step": made.step,
                    "problem_id": problem.problem_id,
                    "question": problem.question,
                    "num_scored": len(problem.values),
                    "mean": sum(problem.values) / len(problem.values) if problem.values else None,
                }


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One header for all rows; a cell that a row does not have stays empty, as does a number that is not finite."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with replace_atomically(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [as_cell(column) for column in columns])
        writer.writeheader()
        writer.writerows({as_cell(column): as_cell(value) for column, value in row.items()} for row in rows)
    return path
