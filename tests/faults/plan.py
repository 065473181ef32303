"""Which faults a campaign does: drawn from its seed, every kind and every named point among them."""

import random
import signal
from collections.abc import Callable, Iterator, Sequence

from tests.faults.disk import can_mount
from tests.faults.points import ERRORS, POINTS
from tests.faults.promises import PROMISES
from tests.faults.scene import Fault, pick_shape
from tests.faults.shapes import NUM_STEPS, SHAPES

NEEDS: dict[str, str] = {"guard": "guard", "curves": "reported", "report": "reported", "tracker": "reported"}
"""Points that only runs of this shape pass."""

FILES: dict[str, tuple[Callable[[int], Sequence[int | None]], str]] = {
    "metrics.jsonl": (lambda num_steps: range(1, num_steps + 1), ""),
    "evaluations.jsonl": (lambda num_steps: (0, 2, num_steps), ""),
    "provenance.json": (lambda _: (None,), ""),
    "config.json": (lambda _: (None,), ""),
    "identity.json": (lambda _: (None,), ""),
    "numbers.json": (lambda num_steps: (2, num_steps), ""),
    "manifest.json": (lambda num_steps: (2, num_steps), ""),
    "guard.json": (lambda num_steps: (2, num_steps), "guard"),
    "summary.json": (lambda _: (None,), ""),
    "report.html": (lambda _: (None,), "reported"),
}
"""Files that a kill leaves half-written: in which steps, and in runs of which shape."""

WRITTEN_AGAIN = {"config.json", "summary.json"}
"""By a resume too."""


def plan(seed: int, *, num_moments: int = 200, repeats: int = 4, num_steps: int = NUM_STEPS) -> list[Fault]:
    """Return the faults of the whole campaign."""
    generator = random.Random(seed)
    return [
        *_moments(generator, num_moments),
        *_points(generator, "kill at a named point", num_steps),
        *_points(generator, "exception at a named point", num_steps),
        *_files(generator, num_steps),
        *_damages(generator, repeats),
        *_disks(generator, 3 * repeats, num_steps),
        *_others(generator, repeats, num_steps),
    ]


def _moments(generator: random.Random, count: int) -> Iterator[Fault]:
    left = count
    while left > 0:
        kills = min(left, generator.choice((1, 1, 1, 2, 4)))
        left -= kills
        shape = pick_shape(generator)
        detail = "once" if kills == 1 else f"{kills} times in one run"
        yield Fault("kill at a random moment", detail, shape, generator.randrange(2**31), {"count": kills})


def _points(generator: random.Random, kind: str, num_steps: int) -> Iterator[Fault]:
    for name, point in POINTS.items():
        # Even steps are those with an evaluation, a checkpoint and a look of the guard.
        for step in (2, num_steps // 2, num_steps) if point.part == "step" else (0,):
            for when in ("before", "after"):
                shape = NEEDS.get(name) or pick_shape(generator, slow=0.02)
                error = generator.choice(list(ERRORS))
                given = {"point": name, "when": when, "step": step, "part": point.part}
                is_kill = kind.startswith("kill")
                given |= {"kind": "kill"} if is_kill else {"kind": "raise", "error": error}
                where = f"{when} {name}" + (f", step {step}" if step else "") + ("" if is_kill else f": {error}")
                yield Fault(kind, where, shape, 0, given)


def _files(generator: random.Random, num_steps: int) -> Iterator[Fault]:
    for name, (steps, shape) in FILES.items():
        for step in steps(num_steps):
            for is_resumed in (False, True) if name in WRITTEN_AGAIN else (False,):
                given = {"kind": "half file", "file": name, "step": step, "is_resumed": is_resumed}
                where = name + (f", step {step}" if step is not None else "") + (" of a resume" if is_resumed else "")
                kind = "kill in the middle of a file"
                yield Fault(kind, where, shape or pick_shape(generator, slow=0), 0, given)


def _damages(generator: random.Random, repeats: int) -> Iterator[Fault]:
    for kind, promise in PROMISES.items():
        if promise.harm is None:
            continue
        for damage in promise.harm.damages:
            for _ in range(1 if damage in ("empty", "delete", "delete all") else repeats):
                shape = promise.harm.shape or pick_shape(generator, slow=0.02)
                yield Fault(kind, damage, shape, generator.randrange(2**31), {"damage": damage})


def _disks(generator: random.Random, repeats: int, num_steps: int) -> Iterator[Fault]:
    for _ in range(repeats if can_mount() else 0):
        kilobytes = generator.randrange(8, 3000)
        yield Fault("full disk", f"{kilobytes} kB", pick_shape(generator, slow=0.02), 0, {"kilobytes": kilobytes})
    for _ in range(repeats):
        size = int(10 ** generator.uniform(2, 5.7))
        shape = pick_shape(generator, slow=0.02)
        yield Fault("limit on the size of files", f"{size} bytes", shape, 0, {"bytes": size})
    for step in range(num_steps + 1):
        yield Fault("read-only folder", f"step {step}", pick_shape(generator, slow=0.02), 0, {"step": step})


def _others(generator: random.Random, repeats: int, num_steps: int) -> Iterator[Fault]:
    for seconds in (-3600.0, 3600.0, -1e8, 3e8):
        given = {"seconds": seconds, "step": generator.randint(1, num_steps)}
        yield Fault("clock jumps", f"{seconds:+g} s", pick_shape(generator), 0, given)
    for _ in range(3):
        yield Fault("two processes on one folder", "a resume of a run that goes on", pick_shape(generator, slow=0))
        yield Fault("two starts with one name", "at the same moment", pick_shape(generator, slow=0))
        yield Fault("closed standard output", "from the beginning", pick_shape(generator))
    for kind, is_twice in (("signal at a random moment", False), ("second signal at a random moment", True)):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for _ in range(repeats):
                given = {"signal": int(number), "is_twice": is_twice}
                yield Fault(kind, number.name, pick_shape(generator), generator.randrange(2**31), given)


def shapes_of(faults: list[Fault]) -> list[str]:
    """Return the shapes that these faults need, in the order of `SHAPES`."""
    used = {fault.shape for fault in faults}
    return [name for name in SHAPES if name in used]
