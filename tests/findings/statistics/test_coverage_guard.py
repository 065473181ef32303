"""The guard's false alarms over a run, and the changes that it sees."""

from functools import partial

import numpy as np
import pytest

from benchmarks.coverage.cells import Alarms
from benchmarks.coverage.guard import Draw, Run, cells, problems, rollouts, whole

RATE = 0.05


def alarms(make, num_runs: int) -> float:
    def any_alarm(run: Run) -> bool:
        return any(alarm for alarm, _ in run)

    return sum(any_alarm(make()) for _ in range(num_runs)) / num_runs


def most(num_runs: int) -> float:
    """The rate and three standard errors."""
    return RATE + 3 * (RATE * (1 - RATE) / num_runs) ** 0.5


def test_a_run_in_which_nothing_changed_is_seldom_stopped_whatever_is_watched():
    generator = np.random.default_rng(0)
    make = partial(whole, Draw(8, 4, correlation=0.5), Draw(30, share=0.6), generator)
    assert alarms(make, 60) <= most(60)


def test_a_heavy_loss_is_seen_in_a_run_that_watches_one_limit_of_seven():
    generator = np.random.default_rng(0)
    forgets = partial(problems, Draw(40, share=0.7, change=-0.5, redrawn=0.1), generator, of_level=1 / 2)
    loops = partial(rollouts, Draw(16, 8, share=0.1, change=0.6), generator, of_level=1 / 12, with_before=False)
    assert alarms(forgets, 50) >= 0.9
    assert alarms(loops, 50) >= 0.9


def test_the_part_yields_alarms():
    found = next(cells(2, np.random.default_rng(0)))
    assert isinstance(found, Alarms)
    assert (found.truth, found.num_sets) == ("nothing changed", 2)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.7])
@pytest.mark.parametrize(("number", "share"), [(4, 0.18), (16, 0.18), (16, 0.3), (64, 0.18)])
def test_rollouts_that_do_not_change_stop_at_most_one_run_in_twenty(number: int, share: float, correlation: float):
    generator = np.random.default_rng(0)
    make = partial(rollouts, Draw(number, 8, share, correlation), generator, with_before=False)
    assert alarms(make, 100) <= most(100)


@pytest.mark.slow
@pytest.mark.parametrize("redrawn", [0.2, 1.0])
@pytest.mark.parametrize("number", [40, 100])
def test_answers_that_only_swap_stop_at_most_one_run_in_twenty(number: int, redrawn: float):
    generator = np.random.default_rng(0)
    make = partial(problems, Draw(number, share=0.6, redrawn=redrawn), generator)
    assert alarms(make, 400) <= most(400)
