"""Does a change move numbers? An old state of klimb and this one do the same things, and all they write is compared.

    git worktree add ../before 11d7ecd
    python -m benchmarks.equality ../before
    python -m benchmarks.equality ../before --only ppo resume --markdown equality.md
    python -m benchmarks.equality ../before --long

Both states run on this machine, with one thread, each with its own Python if its checkout has a `.venv`. Differences
that are wanted are declared in `benchmarks/equality/declared.py`, each with its reason. The exit status is 1 if there
is a difference that is not declared.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.equality.case import Case
from benchmarks.equality.cases import CASES
from benchmarks.equality.comparing import AspectResult, Outcome, compare_outcomes
from benchmarks.equality.sides import ENVIRONMENT, CommandFailed, Place, Side
from benchmarks.equality.table import markdown, plain_line, summary_line

HERE = Path(__file__).resolve().parents[2]
BROKEN = "(a command failed)"


def main() -> None:
    """Run the chosen cases in both states, print a line for each aspect, and end with 1 if one differs."""
    arguments = parsed()
    chosen = choose_cases(arguments.only, is_long=arguments.long)
    started = time.monotonic()
    results: list[AspectResult] = []
    with working_folder(arguments.keep) as folder:
        make_material(folder / "material")
        with Side("old", arguments.old) as old, Side("new", HERE) as new:
            for case in chosen:
                results += run_case(case, (old, new), folder)
    missing = left_out(chosen)
    for result in missing:
        print(plain_line(result))
    results += missing
    summary = summary_line(results, time.monotonic() - started)
    print(summary)
    if arguments.markdown is not None:
        title = f"{arguments.old.name} and this state, compared"
        arguments.markdown.write_text(markdown(results, title=title, summary=summary), encoding="utf-8")
    sys.exit(any(result.status == "differs" for result in results))


def make_material(folder: Path) -> None:
    """Write the inputs that both states share, in a process with the same one thread.

    Raises:
        CalledProcessError: it failed; what it said was printed.
    """
    command = [sys.executable, "-m", "benchmarks.equality.material", str(folder)]
    made = subprocess.run(
        command, cwd=HERE, env={**os.environ, **ENVIRONMENT}, check=False, capture_output=True, text=True
    )
    if made.returncode != 0:
        print(made.stderr, file=sys.stderr)
        made.check_returncode()


def run_case(case: Case, sides: Sequence[Side], folder: Path) -> list[AspectResult]:
    """Let one state after the other do it, compare, and print what came of it."""
    started = time.monotonic()
    outcomes = [measured(case, side, folder) for side in sides]
    results = compare_outcomes(case.name, *outcomes)
    if all(BROKEN in outcome for outcome in outcomes):
        results = [
            AspectResult(case=case.name, aspect="all", status="differs", note=str(outcome[BROKEN]))
            for outcome in outcomes
        ]
    print(f"{case.name}: {case.about}; {time.monotonic() - started:.0f} s", flush=True)
    for result in results:
        print(plain_line(result), flush=True)
    return results


def measured(case: Case, side: Side, folder: Path) -> Outcome:
    """Return the outcome of a case in a state; where a command fails, what it said."""
    place = Place(side, folder / side.name / case.name, folder / "material")
    place.folder.mkdir(parents=True)
    try:
        return case.measure(place)
    except CommandFailed as error:
        return {BROKEN: str(error)}


def choose_cases(patterns: Sequence[str], *, is_long: bool) -> list[Case]:
    """Return the cases that were named, patterns allowed; without names all, the long ones only if asked for.

    Raises:
        SystemExit: a name fits no case.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in CASES):
            sys.exit(f"--only {pattern}: there is no such case; there are {', '.join(case.name for case in CASES)}")
    if patterns:
        return [case for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in patterns)]
    return [case for case in CASES if is_long or not case.is_long]


def left_out(chosen: Sequence[Case]) -> list[AspectResult]:
    """Return a line for the cases that were not run, so that no table looks complete that is not."""
    missing = [case for case in CASES if case not in chosen]
    rows = [(case.name, "takes minutes; --long runs it") for case in missing if case.is_long]
    others = [case.name for case in missing if not case.is_long]
    if others:
        rows.append((f"{len(others)} other cases", f"not among --only: {', '.join(others)}"))
    return [AspectResult(case=name, aspect="all", status="not compared", note=note) for name, note in rows]


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """Return a folder for all that the cases write; removed behind them unless it was named."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="klimb-equality-") as folder:
        yield Path(folder).resolve()


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="folder of a checkout of the old state")
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="names or patterns of cases")
    parser.add_argument("--long", action="store_true", help="also the cases that take minutes")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    arguments = parser.parse_args()
    if not (arguments.old / "src" / "klimb").is_dir():
        parser.error(f"{arguments.old} is no checkout of klimb: there is no src/klimb in it")
    return arguments


if __name__ == "__main__":
    main()
