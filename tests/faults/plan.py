"""Which faults a campaign does: drawn from its seed, every kind and every named point among them."""

import random
from collections.abc import Iterator

from tests.faults.points import ERRORS, POINTS
from tests.faults.scene import Fault, pick_shape
from tests.faults.shapes import NUM_STEPS, SHAPES

NEEDS: dict[str, str] = {"guard": "guard", "curves": "reported", "report": "reported", "tracker": "reported"}
"""Points that only runs of this shape pass."""

NOT_ALWAYS_PASSED = {"decoding"}


def plan(seed: int, *, num_moments: int = 200, num_steps: int = NUM_STEPS) -> list[Fault]:
    """Return the faults of the whole campaign."""
    generator = random.Random(seed)
    return [
        *_moments(generator, num_moments),
        *_points(generator, "kill at a named point", num_steps),
        *_half_lines(generator, num_steps),
        *_points(generator, "exception at a named point", num_steps),
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
        for step in (2, num_steps // 2, num_steps) if point.is_in_steps else (0,):
            for when in ("before", "after"):
                shape = NEEDS.get(name) or pick_shape(generator, slow=0.02)
                error = generator.choice(list(ERRORS))
                given = {"point": name, "when": when, "step": step, "is_in_steps": point.is_in_steps}
                is_kill = kind.startswith("kill")
                given |= {"kind": "kill"} if is_kill else {"kind": "raise", "error": error}
                where = f"{when} {name}" + (f", step {step}" if step else "") + ("" if is_kill else f": {error}")
                yield Fault(kind, where, shape, 0, given)


def _half_lines(generator: random.Random, num_steps: int) -> Iterator[Fault]:
    for step in range(1, num_steps + 1):
        given = {"kind": "half line", "step": step}
        yield Fault("half a line of metrics", f"step {step}", pick_shape(generator, slow=0), 0, given)


def shapes_of(faults: list[Fault]) -> list[str]:
    """Return the shapes that these faults need, in the order of `SHAPES`."""
    used = {fault.shape for fault in faults}
    return [name for name in SHAPES if name in used]
