"""Does noise move the policy? Every recipe, temperature, top-p and source, on rewards that are a hash of the answer.

    python -m benchmarks.noise_control --csv after.csv                    # every cell: about 15 minutes of one core
    python -m benchmarks.noise_control --csv some.csv --only dapo grpo    # some recipes
    python -m benchmarks.noise_control --csv x.csv --set correction.kind=decoupled
    python -m benchmarks.noise_control --from after.csv --before before.csv --markdown all.md --page docs/noise.md

A cell is judged by runs of the same recipe at temperature 1 without a clip: `benchmarks/noise_control/judging.py`.
`--from` reads results instead of making them. `--before` puts another state's results first: `before / after`.
`--markdown` writes a line a cell, `--page` fills the tables of a page between its marks.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.noise_control.cells import Cell, all_cells
from benchmarks.noise_control.results import read_results, write_as_they_come
from benchmarks.noise_control.table import direction_table, full_table, judge_all, recipe_table, setting_table, summary
from benchmarks.noise_control.trial import Place, Result, be_quiet, run_cell
from benchmarks.page import fill_page
from klimb.training.recipes import RECIPES

MARK = "noise"


def main() -> None:
    """Run or read the cells, and write the tables that are asked for."""
    arguments = parsed()
    results = read_results(arguments.source) if arguments.source else run_all(arguments)
    both = [results] if arguments.before is None else [read_results(arguments.before), results]
    states = [judge_all(each) for each in both]
    print(page_tables(both))
    if arguments.markdown is not None:
        arguments.markdown.write_text(f"{summary(states)}\n\n{full_table(states)}\n", encoding="utf-8")
    if arguments.page is not None:
        fill_page(arguments.page, MARK, page_tables(both))


def run_all(arguments: argparse.Namespace) -> list[Result]:
    """Run the chosen cells, a line of output each."""
    cells = [cell for cell in all_cells() if not arguments.only or cell.recipe in arguments.only]
    started = time.monotonic()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="klimb-noise-") as folder:
        place = Place(folder=Path(folder))
        place.make()
        made = run_cells(cells, place, arguments.set, num_processes=arguments.processes)
        for number, result in enumerate(write_as_they_come(arguments.csv, made), start=1):
            results.append(result)
            print(f"{number}/{len(cells)} {plain_line(result)}", flush=True)
    print(f"{len(cells)} runs in {time.monotonic() - started:.0f} s")
    return results


def run_cells(cells: Sequence[Cell], place: Place, overrides: Sequence[str], *, num_processes: int) -> Iterator[Result]:
    """Yield the results in the order of the cells."""
    run = partial(run_cell, place=place, overrides=tuple(overrides))
    if num_processes == 1:
        yield from map(run, cells)
        return
    with multiprocessing.get_context("spawn").Pool(num_processes, initializer=be_quiet) as pool:
        yield from pool.imap(run, cells, chunksize=4)


def plain_line(result: Result) -> str:
    """Return a run in one line."""
    cell, drift = result.cell, result.drift
    name = f"{cell.role} {cell.recipe} {cell.origin} T {cell.temperature:g} top-p {cell.top_p:g} seed {cell.seed}"
    if drift is None:
        return f"{name}: {result.refused}"
    at = cell.temperature
    return (
        f"{name}: entropy {drift.before[at]:.3f} -> {drift.after[at]:.3f}, at 1 {drift.before[1.0]:.3f} -> "
        f"{drift.after[1.0]:.3f}, KL {drift.kl[at]:.3f}, at 1 {drift.kl[1.0]:.3f}, touched {result.touched}; "
        f"{result.seconds:.1f} s"
    )


def page_tables(both: Sequence[Sequence[Result]]) -> str:
    """Return what stands between the marks of the page."""
    states = [judge_all(results) for results in both]
    parts = (
        summary(states),
        "Cells outside, by setting:",
        setting_table(states),
        "Mean change of entropy over the recipes with a clip (in parentheses at T = 1, with the clip):",
        direction_table(both),
        "Cells outside, by recipe and source; largest over what is judged:",
        recipe_table(states),
    )
    return "\n\n".join(parts)


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--csv", type=Path, help="run, and write a row a run here")
    made.add_argument("--from", dest="source", type=Path, help="read such a file instead")
    parser.add_argument("--before", type=Path, help="results of another state, to stand before these")
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE", choices=list(RECIPES))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="for every cell, not the yardstick")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the table of all cells here")
    parser.add_argument("--page", type=Path, help="fill the tables of this page")
    return parser.parse_args()


if __name__ == "__main__":
    # One thread a run, as the numbers are: set before torch starts threads of its own in a child.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    be_quiet()
    sys.exit(main())
