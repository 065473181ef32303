"""What the guard can see: how often it will look, and the change that it then finds in 4 of 5 runs. Without torch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from klimb.findings.statistics import AlarmBudget, sign_test
from klimb.training.guard.comparison import FORMAT, GENERAL, LIMIT_OF, split_level
from klimb.training.guard.settings import GuardSettings

POWER = 0.8
"""Share of the runs in which a change is to be seen: the usual power of a study."""


ENOUGH_PROMPTS = 40
"""A step of fewer prompts is looked at together with those before it, as far back as the last check."""


MOST_OPEN_CHECKS = 20
"""Checks taken to be left at each one, where tokens or seconds may end the run before `training.num_steps`."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How often a run is looked at.

    Attributes:
        num_steps: of the run.
        every_steps: between two checks; there is one at the end besides.
        may_end_earlier: tokens or seconds may end it.
    """

    num_steps: int
    every_steps: int
    may_end_earlier: bool = False

    def num_left(self, step: int) -> int:
        """Return the checks still to come at this step, the one made there included.

        Where the run may end earlier they are 20 at most: it would else keep nearly all of its false alarms for checks
        that never come.
        """
        left = 1 + math.ceil(max(0, self.num_steps - step) / self.every_steps)
        return min(left, MOST_OPEN_CHECKS) if self.may_end_earlier else left

    @property
    def num_checks(self) -> int:
        """Return how many there are in all, that before training left out."""
        return self.num_left(min(self.every_steps, self.num_steps))


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What rollouts are of.

    Attributes:
        per_step: prompts that a step draws answers to; 0 where it draws none.
        different: that there are in training.
    """

    per_step: int
    different: int

    @property
    def num_before(self) -> int:
        """Return how many the first step asks."""
        return min(self.per_step, self.different)

    def num_now(self, every_steps: int) -> int:
        """Return how many a check looks at."""
        steps = min(every_steps, math.ceil(ENOUGH_PROMPTS / self.per_step))
        return min(steps * self.per_step, self.different)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The smallest change that one check sees in 4 of 5 runs.

    Attributes:
        name: of the metric.
        unit: what is counted, as one noun.
        num_units: of these at a check.
        num_checks: of the run.
        change: fall or rise of the share; None if no change is seen so often.
        change_alone: the same fall where no problem is gained; None for rollouts, or if none is seen.
    """

    name: str
    unit: str
    num_units: int
    num_checks: int
    change: float | None
    change_alone: float | None = None

    @property
    def sentence(self) -> str:
        """Return it in words."""
        given = f"with {_counted(self.num_units, self.unit)} and {_counted(self.num_checks, 'check')} the guard sees"
        return f"{given} {self._what}; more {self.unit}s see smaller ones"

    @property
    def _what(self) -> str:
        if self.name != GENERAL:
            what = "rise of refusals, empty answers or loops"
            seen = None if self.change is None else f"a {what} from none to {self.change:.0%} of the rollouts"
        else:
            what = "fall of the general score"
            alone = "" if self.change_alone is None else f" (of {100 * self.change_alone:.0f} if none is gained)"
            seen = None if self.change is None else f"a {what} of {100 * self.change:.0f} points{alone}"
        return f"no {what} in 4 of 5 runs" if seen is None else f"{seen} in 4 of 5 runs"

    def row(self) -> dict[str, Any]:
        """Return it as guard.json holds it."""
        return {**asdict(self), "sentence": self.sentence}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def detections(
    settings: GuardSettings, schedule: Schedule, prompts: Prompts, *, num_problems: int
) -> tuple[Detection, ...]:
    """Return what the guard can see of the general score and of the rollouts, from the rule itself.

    Args:
        settings: the limits.
        schedule: of the checks.
        prompts: of the rollouts.
        num_problems: general problems.
    """
    level = AlarmBudget(settings.false_alarm_rate).level(schedule.num_checks)
    levels = split_level(level, list(_tested(settings, prompts, num_problems)), settings)
    found: list[Detection] = []
    if GENERAL in levels and settings.max_general_drop is not None:
        falls = [
            smallest_fall(num_problems, level=levels[GENERAL], limit=settings.max_general_drop, is_alone=is_alone)
            for is_alone in (False, True)
        ]
        found.append(_of(GENERAL, "problem", num_problems, schedule, *falls))
    of_rollouts = {name: levels[name] for name in levels if "rollout" in name}
    limits = [limit for name in of_rollouts if (limit := getattr(settings, LIMIT_OF[name])) is not None]
    if limits:
        number = prompts.num_now(settings.every_steps)
        rise = smallest_rise(prompts.num_before, number, level=min(of_rollouts.values()), limit=max(limits))
        found.append(_of("guard/rollouts", "prompt", number, schedule, rise))
    return tuple(found)


def smallest_fall(num_problems: int, *, level: float, limit: float, is_alone: bool) -> float | None:
    """Return the smallest fall, in hundredths, from which on one check sees it with a chance of 0.8; None if none is.

    Exact: the lost and the gained problems are multinomial, and each outcome is put to the sign test and the limit.

    Args:
        num_problems: asked both times.
        level: of the test.
        limit: the fall that is allowed.
        is_alone: no problem is gained. Else as many are as if each answer were drawn anew, at the mean score before
            at which that is most: a share ((1 − fall)/2)² is gained, and the fall more than that is lost. Answers
            that stay as they were leave fewer of both, and the fall is seen more often.
    """
    least = _least_worse(num_problems, level=level, limit=limit)

    def power(fall: float) -> float:
        gained = 0.0 if is_alone else ((1 - fall) / 2) ** 2
        changed = np.arange(num_problems + 1)
        chance = fall + 2 * gained
        return float((_binomial(changed, num_problems, chance) * _at_least(least, changed, 1 - gained / chance)).sum())

    return _smallest(power)


def smallest_rise(num_before: int, num_now: int, *, level: float, limit: float) -> float | None:
    """Return the smallest share, in hundredths, from which on one check sees it with a chance of 0.8; None if none is.

    From none before, and as if the answers to one prompt were all alike, which tells least: the prompts that are
    flagged are then binomial, and the permutation test of them is Fisher's.

    Args:
        num_before: prompts of the first step.
        num_now: prompts of the check.
        level: of the test.
        limit: the share that is allowed.
    """
    flagged = np.arange(num_now + 1)
    # All that are flagged fall to one side by chance: C(now, k)/C(before + now, k).
    log_p = (
        _log_factorial(num_now)
        - _log_factorial(num_now - flagged)
        - _log_factorial(num_before + num_now)
        + _log_factorial(num_before + num_now - flagged)
    )
    is_seen = (np.exp(log_p) <= level) & (flagged > limit * num_now)
    return _smallest(lambda share: float(_binomial(flagged, num_now, share)[is_seen].sum()))


def _of(
    name: str, unit: str, number: int, schedule: Schedule, change: float | None, alone: float | None = None
) -> Detection:
    return Detection(
        name=name,
        unit=unit,
        num_units=number,
        num_checks=schedule.num_checks,
        change=change,
        change_alone=alone,
    )


def _tested(settings: GuardSettings, prompts: Prompts, num_problems: int) -> Iterator[str]:
    for name in LIMIT_OF:
        if name == FORMAT:
            is_measured = prompts.per_step > 0 and settings.min_format_fraction is not None
        else:
            is_measured = prompts.per_step > 0 if "rollout" in name else num_problems > 0
        if is_measured:
            yield name


def _least_worse(num_problems: int, *, level: float, limit: float) -> np.ndarray:
    """For each number that changed, how many of them must have got worse; more than all of them if none would do."""
    least = np.empty(num_problems + 1, dtype=np.int64)
    worse = 0
    for changed in range(num_problems + 1):
        while worse <= changed and (
            2 * worse - changed <= limit * num_problems
            or sign_test(num_worse=worse, num_better=changed - worse) > level
        ):
            worse += 1
        least[changed] = worse
    return least


def _smallest(power: Callable[[float], float]) -> float | None:
    smallest = None
    for hundredths in range(100, 0, -1):
        if power(hundredths / 100) < POWER:
            break
        smallest = hundredths / 100
    return smallest


def _binomial(successes: np.ndarray, number: int, chance: float) -> np.ndarray:
    log_ways = _log_factorial(number) - _log_factorial(successes) - _log_factorial(number - successes)
    return np.exp(log_ways + special.xlogy(successes, chance) + special.xlog1py(number - successes, -chance))


def _at_least(least: np.ndarray, number: np.ndarray, chance: float) -> np.ndarray:
    """P(X ≥ least) for a binomial X."""
    tail = special.betainc(np.maximum(least, 1), np.maximum(number - least, 0) + 1, chance)
    return np.where(least <= 0, 1.0, np.where(least > number, 0.0, tail))


def _log_factorial(number: Any) -> Any:
    return special.gammaln(np.asarray(number, dtype=np.float64) + 1)
