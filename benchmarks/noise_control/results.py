"""The results of a state of klimb as CSV: a row a run, all that is measured, and nothing that is judged."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from benchmarks.noise_control.cells import TEMPERATURES, Cell, Origin, Role
from benchmarks.noise_control.drift import Drift
from benchmarks.noise_control.trial import Result

KEYS = ("role", "recipe", "source", "temperature", "top_p", "seed", "touched", "seconds", "refused")
MEASURES = ("before", "after", "kl")


def columns() -> list[str]:
    """Return the names of the columns; `kl_0.6` is the KL at temperature 0.6."""
    return [*KEYS, *(f"{measure}_{temperature:g}" for measure in MEASURES for temperature in TEMPERATURES)]


def as_row(result: Result) -> dict[str, Any]:
    """Return the result as a row."""
    cell, drift = result.cell, result.drift
    row: dict[str, Any] = {
        "role": cell.role,
        "recipe": cell.recipe,
        "source": cell.origin,
        "temperature": f"{cell.temperature:g}",
        "top_p": f"{cell.top_p:g}",
        "seed": cell.seed,
        "touched": "" if result.touched is None else f"{result.touched:.4f}",
        "seconds": f"{result.seconds:.2f}",
        "refused": result.refused,
    }
    for measure in MEASURES:
        for temperature in TEMPERATURES:
            value = "" if drift is None else f"{getattr(drift, measure)[temperature]:.5f}"
            row[f"{measure}_{temperature:g}"] = value
    return row


def as_result(row: dict[str, str]) -> Result:
    """Return the result of a row."""
    cell = Cell(
        recipe=row["recipe"],
        temperature=float(row["temperature"]),
        top_p=float(row["top_p"]),
        origin=cast(Origin, row["source"]),
        seed=int(row["seed"]),
        role=cast(Role, row["role"]),
    )
    values = {
        measure: {temperature: float(row[f"{measure}_{temperature:g}"] or "nan") for temperature in TEMPERATURES}
        for measure in MEASURES
    }
    return Result(
        cell=cell,
        drift=None if row["refused"] else Drift(**values),
        touched=float(row["touched"]) if row["touched"] else None,
        seconds=float(row["seconds"]),
        refused=row["refused"],
    )


def write_as_they_come(path: Path, results: Iterable[Result]) -> Iterator[Result]:
    """Write each result as it comes, and hand it on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(), lineterminator="\n")
        writer.writeheader()
        for result in results:
            writer.writerow(as_row(result))
            file.flush()
            yield result


def read_results(path: Path) -> list[Result]:
    """Return the results of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [as_result(row) for row in csv.DictReader(file)]
