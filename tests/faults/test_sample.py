"""A sample of the campaign: each kind of fault, to the plain run or to the one that has what it needs."""

import random
from dataclasses import replace

from tests.faults.conftest import NUM_STEPS, SHAPES
from tests.faults.doing import DOERS, do
from tests.faults.plan import plan
from tests.faults.promises import PROMISES
from tests.faults.scene import Fault, Scene

NUM_TWICE = 1
"""Kinds of which a second fault is done."""


def sample(seed: int) -> list[Fault]:
    """One fault of each kind that the shapes here can have, and a second of some."""
    faults = plan(seed, num_steps=NUM_STEPS)
    random.Random(seed).shuffle(faults)
    drawn: dict[str, list[Fault]] = {}
    for fault in faults:
        if not needs_another_shape(fault):
            drawn.setdefault(fault.kind, []).append(fault)
    firsts = [replace(of_kind[0], shape=shape_for(of_kind[0])) for of_kind in drawn.values()]
    seconds = [replace(of_kind[1], shape=SHAPES[1]) for of_kind in list(drawn.values())[:NUM_TWICE] if len(of_kind) > 1]
    return [*firsts, *seconds]


def needs_another_shape(fault: Fault) -> bool:
    harm = PROMISES[fault.kind].harm
    point = str(fault.given.get("point", ""))
    is_bound = (harm is not None and harm.shape) or point in ("guard", "curves", "report", "tracker")
    return bool(is_bound or fault.given.get("file") in ("guard.json", "report.html")) and fault.shape not in SHAPES


def shape_for(fault: Fault) -> str:
    harm = PROMISES[fault.kind].harm
    return harm.shape if harm is not None and harm.shape else SHAPES[0]


def test_each_kind_of_fault_comes_out_as_promised(scene: Scene):
    faults = sample(seed=0)
    outcomes = [(fault, do(scene, fault)) for fault in faults]
    lost = [f"{fault.kind} · {fault.detail}: {made.note}" for fault, made in outcomes if made.verdict == "LOST"]
    assert not lost, "\n".join(lost)
    assert len({fault.kind for fault in faults}) > len(PROMISES) - 5


def test_every_kind_has_a_promise_and_somebody_who_does_it():
    assert DOERS.keys() == PROMISES.keys()
