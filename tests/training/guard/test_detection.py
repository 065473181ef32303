"""How often a run is looked at, and that the guard sees what it says it sees."""

from dataclasses import replace

import numpy as np
import pytest

from klimb.findings.statistics import AlarmBudget
from klimb.training.guard.base_metrics import BaseMetrics, Flags
from klimb.training.guard.detection import POWER, Prompts, Schedule, detections, smallest_fall, smallest_rise
from klimb.training.guard.limits import find_breaches
from klimb.training.guard.settings import LIMITS, GuardSettings

NO_LIMITS = GuardSettings(**dict.fromkeys(LIMITS))
NUM_RUNS = 400
SLACK = 3 * (POWER * (1 - POWER) / NUM_RUNS) ** 0.5
LEVEL = AlarmBudget(0.05).level(20)


@pytest.mark.parametrize(("num_steps", "steps"), [(200, range(10, 201, 10)), (195, [*range(10, 191, 10), 195])])
def test_the_checks_of_a_schedule_are_counted_down_to_the_one_at_the_end(num_steps: int, steps):
    schedule = Schedule(num_steps=num_steps, every_steps=10)
    assert [schedule.num_left(step) for step in steps] == list(range(20, 0, -1))
    assert schedule.num_checks == 20


def test_a_run_that_may_end_earlier_does_not_save_for_checks_that_never_come():
    schedule = Schedule(num_steps=10**6, every_steps=1, may_end_earlier=True)
    assert schedule.num_left(1) == 20
    assert schedule.num_left(10**6) == 1


@pytest.mark.parametrize("num_problems", [20, 40, 100])
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_fall_that_is_promised_to_be_seen_is_seen_in_four_of_five_runs(num_problems: int, is_alone: bool):
    fall = smallest_fall(num_problems, level=LEVEL, limit=0.1, is_alone=is_alone)
    assert fall is not None
    generator, settings = np.random.default_rng(0), replace(NO_LIMITS, max_general_drop=0.1)
    seen = 0
    for _ in range(NUM_RUNS):
        # Drawn anew at the mean score at which most are gained; or only lost.
        score = (1 + fall) / 2
        before = generator.random(num_problems) < (1 if is_alone else score)
        now = before & (generator.random(num_problems) >= fall)
        if not is_alone:
            now = generator.random(num_problems) < score - fall
        seen += bool(find_breaches(scored(before), scored(now), settings, level=LEVEL))
    assert seen / NUM_RUNS >= POWER - SLACK


@pytest.mark.parametrize(("num_before", "num_now"), [(8, 40), (16, 48), (64, 64)])
@pytest.mark.parametrize("correlation", [0.3, 0.7, 0.999])
def test_a_rise_that_is_promised_to_be_seen_is_seen_in_four_of_five_runs(
    num_before: int, num_now: int, correlation: float
):
    rise = smallest_rise(num_before, num_now, level=LEVEL / 12, limit=0.2)
    assert rise is not None
    generator, settings = np.random.default_rng(0), replace(NO_LIMITS, max_empty_fraction=0.2)
    size, seen = (1 - correlation) / correlation, 0
    before = flagged(np.zeros((num_before, 4)), "before")
    for _ in range(NUM_RUNS):
        chances = generator.beta(rise * size, (1 - rise) * size, num_now)
        now = flagged(generator.random((num_now, 4)) < chances[:, None], "now")
        seen += bool(find_breaches(before, now, settings, level=LEVEL / 12))
    assert seen / NUM_RUNS >= POWER - SLACK


def scored(answers: np.ndarray) -> BaseMetrics:
    return BaseMetrics(general={"sums": tuple(answers.astype(float).tolist())})


def flagged(answers: np.ndarray, when: str) -> BaseMetrics:
    prompts = tuple(f"{when} {prompt}" for prompt in range(len(answers)) for _ in range(answers.shape[1]))
    return BaseMetrics(rollouts=Flags(empty=tuple(answers.astype(bool).ravel().tolist()), prompts=prompts))


def test_more_problems_and_more_prompts_see_smaller_changes():
    falls = [smallest_fall(number, level=0.001, limit=0.1, is_alone=False) or 2.0 for number in (20, 40, 100, 400)]
    rises = [smallest_rise(number, number, level=0.0002, limit=0.2) or 2.0 for number in (8, 16, 64)]
    assert falls == sorted(falls, reverse=True) and len(set(falls)) == 4
    assert rises == sorted(rises, reverse=True) and len(set(rises)) == 3


def test_a_guard_that_can_see_nothing_says_so():
    few = Prompts(per_step=2, different=2)
    found = detections(GuardSettings(), Schedule(num_steps=200, every_steps=10), few, num_problems=5)
    assert [each.change for each in found] == [None, None]
    assert found[0].sentence == (
        "with 5 problems and 20 checks the guard sees no fall of the general score in 4 of 5 runs; more problems see "
        "smaller ones"
    )


def test_what_is_not_measured_or_has_no_limit_is_not_promised():
    schedule, none = Schedule(num_steps=20, every_steps=1), Prompts(per_step=0, different=0)
    assert detections(GuardSettings(), schedule, none, num_problems=0) == ()
    assert detections(NO_LIMITS, schedule, Prompts(per_step=8, different=99), num_problems=40) == ()
