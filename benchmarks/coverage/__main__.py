"""How often klimb's intervals hold the truth, and how often its alarms go off when nothing changed.

    python -m benchmarks.coverage --page docs/statistics.md

Draws data sets whose truth is known, and counts. Each part runs in a process of its own. Writes every case into
coverage.csv and alarms.csv of the folder, and the two tables of the page.
"""

import argparse
import csv
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from benchmarks.coverage import audit, guard, held_out, off_policy, study
from benchmarks.coverage.cells import Alarms, Cell, Coverage, Part
from benchmarks.coverage.tables import alarm_table, coverage_table
from benchmarks.page import fill_page

PARTS: Mapping[str, tuple[Part, int]] = {
    "study": (study.cells, 800),
    "held_out": (held_out.cells, 400),
    "guard": (guard.cells, 200),
    "off_policy": (off_policy.cells, 250),
    "audit": (audit.cells, 250),
}
"""Name -> the part, and data sets of each of its cases: about seven minutes of one core each."""


def run_part(name: str, scale: float, seed: int) -> tuple[list[Cell], float]:
    """Return the cells of a part, and the seconds that it took."""
    started = time.monotonic()
    part, num_sets = PARTS[name]
    # Each part has its own stream, whichever others run.
    generator = np.random.default_rng([seed, *name.encode()])
    return list(part(max(8, round(scale * num_sets)), generator)), time.monotonic() - started


def write_csv(path: Path, cells: Sequence[Cell], kind: type[Coverage] | type[Alarms]) -> None:
    """Write the cells of one kind, one a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(kind)], lineterminator="\n")
        writer.writeheader()
        rows = (asdict(cell) for cell in cells if isinstance(cell, kind))
        writer.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def _rounded(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if np.isnan(value) else f"{value:.4g}"


def main() -> None:
    """Run the parts, write the files and the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of data sets")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("docs/statistics"))
    parser.add_argument("--page", type=Path, default=None, help="Markdown whose two tables are made anew")
    arguments = parser.parse_args()
    names = arguments.parts.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    found: dict[str, list[Cell]] = {}
    with ProcessPoolExecutor(max_workers=2) as pool:
        running = {pool.submit(run_part, name, arguments.scale, arguments.seed): name for name in names}
        for done in as_completed(running):
            found[running[done]], seconds = done.result()
            print(f"{running[done]}: {len(found[running[done]])} cases, {seconds:.0f} s", file=sys.stderr)
    cells = [cell for name in names for cell in found[name]]
    write_csv(arguments.folder / "coverage.csv", cells, Coverage)
    write_csv(arguments.folder / "alarms.csv", cells, Alarms)
    tables = {"coverage": coverage_table(cells), "alarms": alarm_table(cells)}
    print("\n\n".join(tables.values()))
    if arguments.page is not None:
        for name, table in tables.items():
            fill_page(arguments.page, name, table)


if __name__ == "__main__":
    main()
