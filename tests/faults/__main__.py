"""`python -m tests.faults`: the campaign, two processes beside each other, and its table."""

import argparse
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from benchmarks.page import fill_page
from tests.faults.doing import do
from tests.faults.plan import NEEDS, plan, shapes_of
from tests.faults.scene import Fault, Outcome, Scene, set_up
from tests.faults.shapes import NUM_STEPS, SHAPES

Done = tuple[Fault, Outcome]


def carry_out(scenes: Sequence[Scene], faults: Sequence[Fault], *, minutes: float, tell: bool = True) -> list[Done]:
    """Do the faults until the time is over, one at a time in each scene; those left out are not in the result."""
    deadline = time.monotonic() + 60 * minutes
    waiting: SimpleQueue[Fault] = SimpleQueue()
    for fault in faults:
        waiting.put(fault)
    done: list[Done] = []
    lock = threading.Lock()

    def work(scene: Scene) -> None:
        while not waiting.empty() and time.monotonic() < deadline:
            fault = waiting.get()
            try:
                outcome = do(scene, fault)
            except ChildProcessError:
                raise
            except Exception as error:  # of the campaign's own: it must not look like a run that survived
                outcome = Outcome("LOST", f"the campaign failed here: {type(error).__name__}: {error}")
            with lock:
                done.append((fault, outcome))
                if outcome.verdict == "LOST" and tell:
                    print(f"LOST  {fault.kind} · {fault.detail} · {fault.shape}: {outcome.note}", flush=True)

    with ThreadPoolExecutor(len(scenes)) as pool:
        for future in [pool.submit(work, scene) for scene in scenes]:
            future.result()
    return done


def table(done: Sequence[Done]) -> str:
    """Return the verdicts by kind, as a table in Markdown."""
    names = ("fault", "done", "survived", "refused as stated", "went on and said what is missing", "unnoticed", "lost")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    kinds = list(dict.fromkeys(fault.kind for fault, _ in done))
    for kind in [*sorted(kinds), "all"]:
        verdicts = [outcome.verdict for fault, outcome in done if kind in (fault.kind, "all")]
        counts = [len(verdicts), *(verdicts.count(each) for each in ("survived", "refused", "told", "unseen", "LOST"))]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign; the status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=28.0, help="no fault begins later")
    parser.add_argument("--only", default="", help="regular expression of kind and detail")
    parser.add_argument("--shape", default="", help="of the runs, in place of the drawn one", choices=["", *SHAPES])
    parser.add_argument("--every", type=int, default=1, help="do each N-th fault only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks `campaign`")
    arguments = parser.parse_args()
    faults = plan(arguments.seed)
    faults = [fault for fault in faults if re.search(arguments.only, f"{fault.kind} · {fault.detail}")]
    if arguments.shape:
        faults = [replace(fault, shape=arguments.shape) for fault in faults if fault.shape not in NEEDS.values()]
    random.Random(arguments.seed).shuffle(faults)  # so that a short campaign has some of all
    faults = faults[:: arguments.every]
    began = time.monotonic()
    path = Path(tempfile.mkdtemp(prefix="klimb-faults-"))
    try:
        scenes = set_up(path, shapes_of(faults), num_steps=NUM_STEPS, num_nurseries=arguments.processes)
        done = carry_out(scenes, faults, minutes=arguments.minutes)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    left = len(faults) - len(done)
    told = f"seed {arguments.seed}, {len(done)} faults in {(time.monotonic() - began) / 60:.1f} minutes"
    told = f"{told}; {left} were left out when the time was over" if left else told
    print(f"{table(done)}\n\n{told}")
    if arguments.page is not None:
        fill_page(arguments.page, "campaign", f"{table(done)}\n\n`python -m tests.faults`: {told}.")
    return 1 if left or any(outcome.verdict == "LOST" for _, outcome in done) else 0


if __name__ == "__main__":
    sys.exit(main())
