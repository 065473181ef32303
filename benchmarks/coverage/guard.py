"""Alarms of a guard over the checks of a run: when nothing changed, and when something did.

A run is a first measurement and 20 checks, as the guard makes them: of general problems, each with its own chance of a
right answer, and of rollouts, whose prompts each have their own chance of an empty answer. `before` is the rule that
took answers as independent (Fisher's exact test) and looked at 5 % each time (with the sign test for problems).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.coverage.cells import Alarms, Cell
from klimb.findings.statistics import AlarmBudget, sign_test
from klimb.training import BaseMetrics, Flags, GuardSettings, find_breaches
from klimb.training.guard.base_metrics import RATES
from klimb.training.guard.comparison import FORMAT, GENERAL, LIMIT_OF, split_level
from klimb.training.guard.detection import Prompts, Schedule

NUM_CHECKS = 20


SETTINGS = GuardSettings()


LEVELS = split_level(1.0, [name for name in LIMIT_OF if name != FORMAT], SETTINGS)
"""Shares of the level of a check that its tests have, where everything is measured and no format is asked for."""


BEFORE_LEVEL = 0.05


SIZES = (10, 20, 40, 100, 200, 400)


CHANGES = (0.05, 0.1, 0.2, 0.3)


Answers = NDArray[np.bool_]


@dataclass(frozen=True)
class Draw:
    """Where rollouts or answers come from.

    Attributes:
        number: prompts of a step, or problems.
        answers: to each prompt.
        share: of empty answers, or of right ones, before.
        correlation: of the answers to one prompt.
        change: what is added to the share after the first measurement.
        redrawn: share of the answers to problems that each check draws anew; the others stay as they were.
    """

    number: int
    answers: int = 1
    share: float = 0.18
    correlation: float = 0.3
    change: float = 0.0
    redrawn: float = 1.0

    @property
    def case(self) -> str:
        """The draw in words."""
        correlation = f"correlation {self.correlation:g}"
        if self.answers > 1:
            return f"{self.number} prompts x {self.answers}, share {self.share:g}, {correlation}"
        return f"{self.number} problems, score {self.share:g}, {correlation}, {self.redrawn:.0%} drawn anew"

    @property
    def truth(self) -> str:
        """What changed, in words."""
        return f"changed by {self.change:+.0%}" if self.change else "nothing changed"


Run = Iterator[tuple[bool, bool]]
"""Of each check whether the rule alarms, and whether the rule of before does (the same where it is not asked)."""


def rollouts(draw: Draw, generator: np.random.Generator, *, of_level: float = 1.0, with_before: bool = True) -> Run:
    """Yield the checks of one run whose rollouts are of new prompts each time; one rate is tested."""
    number = Prompts(per_step=draw.number, different=10**9).num_now(SETTINGS.every_steps)
    first = _answers(replace(draw, change=0.0), draw.number, generator)
    for level in _levels():
        newest, last = (_answers(draw, size, generator) for size in (number, draw.number))
        alarm = newest.mean() > (SETTINGS.max_empty_fraction or 1) and bool(
            find_breaches(_of_rollouts(first, "before"), _of_rollouts(newest, "now"), SETTINGS, level=level * of_level)
        )
        is_far = last.mean() > (SETTINGS.max_empty_fraction or 1)
        yield alarm, is_far and _fisher(first, last) if with_before else alarm


def problems(draw: Draw, generator: np.random.Generator, *, of_level: float = 1.0) -> Run:
    """Yield the checks of one run that asks the same problems each time; the score is tested."""
    chances = _chances(replace(draw, change=0.0), draw.number, generator)
    changed = chances * (1 + draw.change / draw.share)
    first = generator.random(draw.number) < chances
    now = np.where(generator.random(draw.number) < draw.redrawn, generator.random(draw.number) < changed, first)
    if draw.change:
        now = generator.random(draw.number) < changed
    for level in _levels():
        is_new = generator.random(draw.number) < draw.redrawn
        now = np.where(is_new, generator.random(draw.number) < changed, now)
        found = find_breaches(_of_problems(first), _of_problems(now), SETTINGS, level=level * of_level)
        worse, better = int((first & ~now).sum()), int((now & ~first).sum())
        is_far = first.mean() - now.mean() > (SETTINGS.max_general_drop or 1)
        yield bool(found), is_far and sign_test(num_worse=worse, num_better=better) < BEFORE_LEVEL


def alarms(make: Callable[[], Run], draw: Draw, *, number: str, num_sets: int) -> Alarms:
    """Return how many runs saw any alarm."""
    now = before = 0
    for _ in range(num_sets):
        seen = seen_before = False
        for alarm, alarm_before in make():
            seen, seen_before = seen or alarm, seen_before or alarm_before
            if seen and seen_before:
                break
        now, before = now + seen, before + seen_before
    return Alarms(
        number=number,
        case=draw.case,
        num_sets=num_sets,
        rate=now / num_sets,
        truth=draw.truth,
        before=before / num_sets,
    )


def whole(of_rollouts: Draw, of_problems: Draw, generator: np.random.Generator) -> Run:
    """Yield the checks of one run in which every limit may break: scores, and three flags of answers and rollouts."""
    number = Prompts(per_step=of_rollouts.number, different=10**9).num_now(SETTINGS.every_steps)
    flags = replace(of_problems, share=of_rollouts.share)
    chances = [_chances(draw, of_problems.number, generator) for draw in (of_problems, flags, flags, flags)]
    first = _measured(chances, of_rollouts, of_rollouts.number, "before", generator)
    for level in _levels():
        now = _measured(chances, of_rollouts, number, "now", generator)
        alarm = bool(find_breaches(first, now, SETTINGS, level=level))
        yield alarm, alarm


NULL_ROLLOUTS = tuple(
    Draw(number, answers, share, correlation)
    for number, answers in ((4, 8), (8, 4), (16, 8), (64, 8))
    for share in (0.1, 0.18, 0.3)
    for correlation in (0.0, 0.3, 0.7)
)


NULL_PROBLEMS = tuple(
    Draw(number, share=share, redrawn=redrawn)
    for number in (10, 40, 100, 400)
    for share in (0.3, 0.6)
    for redrawn in (0.2, 1.0)
)


NULL_WHOLE = ((8, 40), (16, 40), (64, 100))
"""Prompts of a step and problems of runs with every limit."""


def cells(num_sets: int, generator: np.random.Generator) -> Iterator[Cell]:
    """Yield the alarms with nothing changed, then the changes that are seen.

    Args:
        num_sets: runs of each case; a third of it where something changed, which is plain sooner.
        generator: of the draws.
    """
    for draw in NULL_ROLLOUTS:
        make = partial(rollouts, draw, generator)
        yield alarms(make, draw, number="guard, rollouts: false alarms a run", num_sets=num_sets)
    for draw in NULL_PROBLEMS:
        make = partial(problems, draw, generator)
        yield alarms(make, draw, number="guard, general score: false alarms a run", num_sets=num_sets)
    for num_prompts, num_problems in NULL_WHOLE:
        draw, asked = Draw(num_prompts, 8), Draw(num_problems, share=0.6)
        make = partial(whole, draw, asked, generator)
        found = alarms(make, draw, number="guard, all limits: false alarms a run", num_sets=num_sets)
        yield replace(found, case=f"{found.case}; {asked.number} problems", before=math.nan)
    yield from detection(max(1, num_sets // 3), generator)


def detection(num_sets: int, generator: np.random.Generator) -> Iterator[Alarms]:
    """Yield how many runs see falls and rises that are there at all 20 checks, each test with its part of the level."""
    for size in SIZES:
        for change in CHANGES:
            draw = Draw(size, share=0.6, change=-change, redrawn=0.1)
            make = partial(problems, draw, generator, of_level=LEVELS[GENERAL])
            yield alarms(make, draw, number="guard, general score: falls seen in a run", num_sets=num_sets)
    for size in SIZES:
        for change in CHANGES:
            draw = Draw(size, 8, share=0.1, change=change)
            part = LEVELS["guard/rollout_empty_fraction"]
            make = partial(rollouts, draw, generator, of_level=part, with_before=False)
            found = alarms(make, draw, number="guard, rollouts: rises seen in a run", num_sets=num_sets)
            yield replace(found, before=math.nan)


def _levels() -> Iterator[float]:
    schedule = Schedule(num_steps=NUM_CHECKS, every_steps=1)
    budget = AlarmBudget(SETTINGS.false_alarm_rate)
    for step in range(1, NUM_CHECKS + 1):
        level = budget.level(schedule.num_left(step))
        yield level
        budget = budget.after(level)


def _chances(draw: Draw, number: int, generator: np.random.Generator) -> NDArray[np.float64]:
    share = draw.share + draw.change
    if draw.correlation == 0:
        return np.full(number, share)
    size = (1 - draw.correlation) / draw.correlation
    return generator.beta(share * size, (1 - share) * size, number)


def _answers(draw: Draw, number: int, generator: np.random.Generator) -> Answers:
    return generator.random((number, draw.answers)) < _chances(draw, number, generator)[:, None]


def _measured(
    chances: list[NDArray[np.float64]], draw: Draw, number: int, when: str, generator: np.random.Generator
) -> BaseMetrics:
    right, *flags = [tuple((generator.random(len(each)) < each).tolist()) for each in chances]
    of_rollouts = [tuple(_answers(draw, number, generator).ravel().tolist()) for _ in RATES]
    return BaseMetrics(
        general={"problems": tuple(map(float, right))},
        answers=Flags(**dict(zip(RATES, flags, strict=True))),
        rollouts=Flags(**dict(zip(RATES, of_rollouts, strict=True)), prompts=_prompts(number, draw.answers, when)),
    )


def _prompts(number: int, each: int, when: str) -> tuple[str, ...]:
    return tuple(f"{when} {prompt}" for prompt in range(number) for _ in range(each))


def _of_rollouts(answers: Answers, when: str) -> BaseMetrics:
    prompts = _prompts(len(answers), answers.shape[1], when)
    return BaseMetrics(rollouts=Flags(empty=tuple(answers.ravel().tolist()), prompts=prompts))


def _of_problems(answers: Answers) -> BaseMetrics:
    return BaseMetrics(general={"problems": tuple(answers.astype(float).tolist())})


def _fisher(first: Answers, last: Answers) -> bool:
    """P(at least so many of the last), of the hypergeometric distribution of all that are empty."""
    empty, hits = int(first.sum() + last.sum()), int(last.sum())
    tail = np.arange(hits, min(empty, last.size) + 1)
    log_ways = _log_ways(empty, tail) + _log_ways(first.size + last.size - empty, last.size - tail)
    return float(np.exp(log_ways - _log_ways(first.size + last.size, last.size)).sum()) < BEFORE_LEVEL


def _log_ways(number: int, chosen: NDArray[np.int64] | int) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        ways = special.gammaln(number + 1) - special.gammaln(np.add(chosen, 1)) - special.gammaln(number - chosen + 1)
    return np.where((np.asarray(chosen) > number), -np.inf, ways)
