"""What was measured now beside what it was before training, and whether it is worse by more than chance.

The unit is what was drawn independently: the problem for the answers to general problems, each of which is asked both
times, and the prompt for rollouts, whose answers to one prompt resemble each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klimb.findings.statistics import permutation_test, sign_test
from klimb.training.guard.base_metrics import RATES, BaseMetrics, Flags, metrics_of
from klimb.training.guard.settings import GuardSettings

GENERAL, FORMAT = "guard/general_mean", "guard/format_valid_fraction"


Units = Mapping[str | int, list[bool]]
"""Prompt -> what is true of each answer to it."""


LIMIT_OF = {
    GENERAL: "max_general_drop",
    **{f"guard/{rate}_fraction": f"max_{rate}_fraction" for rate in RATES},
    **{f"guard/rollout_{rate}_fraction": f"max_{rate}_fraction" for rate in RATES},
    FORMAT: "min_format_fraction",
}
"""Metric that is tested -> key of its limit."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One number before training and now.

    Attributes:
        name: of the metric.
        before: its value before training.
        now: its value now.
        unit: what is independent, as one noun.
        num_units: of these, both times together; a problem that was asked both times is one.
        p: one-sided: how likely it is to be so much worse if nothing changed.
        level: at most which p says that it is worse by more than chance.
        num_worse: problems that got worse, where problems are paired.
        num_better: problems that got better.
    """

    name: str
    before: float
    now: float
    unit: str
    num_units: int
    p: float
    level: float = 0.0
    num_worse: int | None = None
    num_better: int | None = None

    @property
    def is_worse(self) -> bool:
        """True if it is worse than before by more than chance at the level of the check."""
        return self.p <= self.level

    @property
    def evidence(self) -> str:
        """`12 of 40 problems worse, 0 better, p = 0.00024, level 0.0012`."""
        units = f"{self.num_units} {self.unit}{'' if self.num_units == 1 else 's'}"
        changed = f"{self.num_worse} of {units} worse, {self.num_better} better"
        return f"{units if self.num_worse is None else changed}, p = {self.p:.2g}, level {self.level:.2g}"

    def row(self) -> dict[str, Any]:
        """Return the comparison as guard.json holds it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare(before: BaseMetrics, now: BaseMetrics, settings: GuardSettings, *, level: float) -> tuple[Comparison, ...]:
    """Return every tested number that was measured both times.

    Args:
        before: the first measurement.
        now: the newest.
        settings: whose limits share the level.
        level: of this check, all tests together.

    Raises:
        ValueError: the prompts of rollouts are not known.
    """
    values = metrics_of(_scored_both_times(before, now)), metrics_of(_scored_both_times(now, before))
    tests = {name: test for name, test in _tests(before, now) if all(name in each for each in values)}
    levels = split_level(level, tests, settings)
    return tuple(
        Comparison(name=name, before=values[0][name], now=values[1][name], level=levels[name], **test)
        for name, test in tests.items()
    )


def split_level(level: float, names: Sequence[str] | Mapping[str, Any], settings: GuardSettings) -> dict[str, float]:
    """Return the level of each test: those of limits in force add up to `level`.

    The general score has a half, since its fall is seldom large, while empty answers, refusals and loops come in
    numbers; the others share the rest alike. What has no limit gets as much as one of these: it stops no run.
    """
    in_force = [name for name in names if getattr(settings, LIMIT_OF[name]) is not None]
    others = [name for name in in_force if name != GENERAL]
    for_general = level / 2 if others else level
    for_others = (level / 2 if GENERAL in in_force else level) / max(1, len(others))
    return {name: for_general if name == GENERAL else for_others for name in names}


def _scored_both_times(measured: BaseMetrics, other: BaseMetrics) -> BaseMetrics:
    """Leave out general scores whose problem could not be scored the other time: both means are of one set."""
    general = {
        name: tuple(
            None if theirs is None else own for own, theirs in zip(scores, other.general.get(name, ()), strict=False)
        )
        for name, scores in measured.general.items()
    }
    return replace(measured, general=general)


def _tests(before: BaseMetrics, now: BaseMetrics) -> Iterator[tuple[str, dict[str, Any]]]:
    pairs = [
        (one, other)
        for name in before.general
        for one, other in zip(before.general[name], now.general.get(name, ()), strict=False)
        if one is not None and other is not None
    ]
    if pairs:
        yield GENERAL, _paired(np.array(pairs, dtype=np.float64))
    for rate in RATES:
        first, last = (_units(measured.answers, rate) for measured in (before, now))
        if first and last:
            yield f"guard/{rate}_fraction", _paired(-_aligned(first, last))
    if before.rollouts is None or now.rollouts is None:
        return
    for rate in (*RATES, "format_valid"):
        first, last = (_units(_with_prompts(flags), rate) for flags in (before.rollouts, now.rollouts))
        if first and last:
            name = FORMAT if rate == "format_valid" else f"guard/rollout_{rate}_fraction"
            yield name, _of_groups(first, last, is_good=rate == "format_valid")


def _paired(pairs: NDArray[np.float64]) -> dict[str, Any]:
    """Test the sign of the change of each problem; more is better."""
    num_worse, num_better = int((pairs[:, 1] < pairs[:, 0]).sum()), int((pairs[:, 1] > pairs[:, 0]).sum())
    return {
        "unit": "problem",
        "num_units": len(pairs),
        "p": sign_test(num_worse=num_worse, num_better=num_better),
        "num_worse": num_worse,
        "num_better": num_better,
    }


def _of_groups(first: Units, last: Units, *, is_good: bool) -> dict[str, Any]:
    """Test the means of the prompts, which are others each time; where one comes again, it counts on either side."""
    means = [np.array([sum(values) / len(values) for values in units.values()]) for units in (first, last)]
    if is_good:
        means = [1 - each for each in means]
    most = max(len(values) for units in (first, last) for values in units.values())
    return {"unit": "prompt", "num_units": len({*first, *last}), "p": permutation_test(*means, steps=most)}


def _units(flags: Flags, rate: str) -> dict[str | int, list[bool]]:
    """Return what each prompt's answers are; without prompts each answer has its own."""
    values = getattr(flags, rate)
    units: dict[str | int, list[bool]] = {}
    for prompt, value in zip(flags.prompts or map(str, range(len(values))), values, strict=False):
        units.setdefault(prompt, []).append(value)
    return units


def _aligned(first: Units, last: Units) -> NDArray[np.float64]:
    shared = [prompt for prompt in first if prompt in last]
    pairs = [[sum(units[prompt]) / len(units[prompt]) for units in (first, last)] for prompt in shared]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _with_prompts(flags: Flags) -> Flags:
    if flags.prompts or not any(getattr(flags, rate) for rate in (*RATES, "format_valid")):
        return flags
    raise ValueError(
        "the flags of rollouts name no prompts, and answers to one prompt are not independent; give Flags(prompts=...),"
        ' one for each response, e.g. prompts=("2 + 2", "2 + 2", "3 + 4", "3 + 4")'
    )
