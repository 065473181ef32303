"""Base metrics: what a model could do before training and should still do, their limits, and when one is broken.

A limit counts only if two things hold: the number is beyond it, and it has become worse than before training by more
than chance explains (one-sided p below `THRESHOLDS.chance`). So a model that was beyond a limit from the start is not
stopped for it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from klimb.experience import Sample
from klimb.findings.finding import Finding
from klimb.findings.guard.thresholds import THRESHOLDS, Thresholds
from klimb.findings.statistics import paired_chance, unpaired_chance
from klimb.findings.thresholds import Threshold, rows_of
from klimb.training.guard.settings import GuardSettings

UNITS = {name: row.unit for name, row in rows_of(Thresholds).items()} | {"min_format_fraction": "of the rollouts"}
"""Key of `[guard]` -> what its limit counts."""


RATES = ("refusal", "empty", "repetition")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is true of each of some responses, in their order.

    Attributes:
        refusal: it declines to answer.
        empty: it holds nothing but white space.
        repetition: it ends in a loop.
        format_valid: it has the form asked for; empty when none is asked for.
    """

    refusal: tuple[bool, ...] = ()
    empty: tuple[bool, ...] = ()
    repetition: tuple[bool, ...] = ()
    format_valid: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BaseMetrics:
    """One measurement.

    Attributes:
        perplexity: of the held-out text; None when it is not measured.
        general: name of a set of general problems -> of each, 1 or 0 where the set says right or wrong, else its
            score; None without one.
        answers: of the answers to the general problems.
        rollouts: of the step's rollouts; None when none were drawn.
    """

    perplexity: float | None = None
    general: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    answers: Flags = Flags()
    rollouts: Flags | None = None


@runtime_checkable
class MeasuresBase(Protocol):
    """Measures the policy that a run trains. The same weights give the same numbers, and no state of the run moves."""

    def measure(self) -> BaseMetrics:
        """Everything but the rollouts, of the policy as it stands."""
        ...

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        """Return the flags of what a step drew."""
        ...


def metrics_of(measured: BaseMetrics) -> dict[str, float]:
    """Return the measurement as metrics of a step; what was not measured is left out."""
    metrics: dict[str, float] = {}
    if measured.perplexity is not None:
        metrics["guard/perplexity"] = measured.perplexity
    means = {name: mean for name, scores in measured.general.items() if (mean := _mean(scores)) is not None}
    metrics |= {f"guard/general/{name}": mean for name, mean in means.items()}
    if means:
        metrics["guard/general_mean"] = statistics.fmean(means.values())
    metrics |= _fractions(measured.answers, "guard/")
    if measured.rollouts is not None:
        metrics |= _fractions(measured.rollouts, "guard/rollout_")
        if measured.rollouts.format_valid:
            metrics["guard/format_valid_fraction"] = statistics.fmean(measured.rollouts.format_valid)
    return metrics


def find_breaches(before: BaseMetrics, now: BaseMetrics, settings: GuardSettings) -> tuple[Finding, ...]:
    """Return the limits that `now` breaks; what was measured only once is not judged."""
    found = [_of_perplexity(before, now, settings), _of_general(before, now, settings)]
    for rate in RATES:
        limit = threshold_of(f"max_{rate}_fraction", settings)
        found.append(_of_answers(getattr(before.answers, rate), getattr(now.answers, rate), rate, limit))
        if before.rollouts is not None and now.rollouts is not None:
            pair = getattr(before.rollouts, rate), getattr(now.rollouts, rate)
            found.append(_of_rollouts(*pair, metric=f"guard/rollout_{rate}_fraction", limit=limit))
    if before.rollouts is not None and now.rollouts is not None:
        pair = before.rollouts.format_valid, now.rollouts.format_valid
        found.append(_of_format(*pair, limit=threshold_of("min_format_fraction", settings)))
    return tuple(breach for breach in found if breach is not None)


def threshold_of(name: str, settings: GuardSettings) -> Threshold | None:
    """Return the limit of this name with its unit, and the key that sets it; None if there is no such limit."""
    value = getattr(settings, name)
    return None if value is None else Threshold(value, UNITS[name], f"guard.{name}")


def base_metrics_from(stored: Mapping[str, Any]) -> BaseMetrics:
    """Return what `dataclasses.asdict` made JSON of."""

    def flags(part: Mapping[str, Any]) -> Flags:
        return Flags(**{name: tuple(values) for name, values in part.items()})

    return BaseMetrics(
        perplexity=stored["perplexity"],
        general={name: tuple(scores) for name, scores in stored["general"].items()},
        answers=flags(stored["answers"]),
        rollouts=None if stored["rollouts"] is None else flags(stored["rollouts"]),
    )


def _of_perplexity(before: BaseMetrics, now: BaseMetrics, settings: GuardSettings) -> Finding | None:
    limit = threshold_of("max_perplexity_ratio", settings)
    if limit is None or before.perplexity is None or now.perplexity is None:
        return None
    ratio = now.perplexity / before.perplexity
    if ratio <= limit.value:  # nan, which a broken model gives, is not
        return None
    return _breach(
        "guard/perplexity",
        title=f"perplexity of the held-out text is {ratio:.3g} times what it was before training",
        evidence=f"{now.perplexity:.4g} now, {before.perplexity:.4g} before training",
        number=now.perplexity,
        limit=limit.value * before.perplexity,
        threshold=limit,
    )


def _of_general(before: BaseMetrics, now: BaseMetrics, settings: GuardSettings) -> Finding | None:
    """Compare means over sets, and tests over problems that were scored both times."""
    limit = threshold_of("max_general_drop", settings)
    first, last = metrics_of(before).get("guard/general_mean"), metrics_of(now).get("guard/general_mean")
    if limit is None or first is None or last is None or first - last <= limit.value:
        return None
    pairs = [
        (one, other)
        for name in before.general
        for one, other in zip(before.general[name], now.general.get(name, ()), strict=False)
        if one is not None and other is not None
    ]
    num_worse, num_better = sum(last < first for first, last in pairs), sum(last > first for first, last in pairs)
    chance = paired_chance(num_worse=num_worse, num_better=num_better)
    if chance >= THRESHOLDS.chance:
        return None
    return _breach(
        "guard/general_mean",
        title=f"the score on general problems fell from {first:.3f} to {last:.3f}",
        evidence=f"{num_worse} problems worse, {num_better} better, p = {chance:.2g}",
        number=last,
        limit=first - limit.value,
        threshold=limit,
    )


def _of_answers(before: Sequence[bool], now: Sequence[bool], rate: str, limit: Threshold | None) -> Finding | None:
    """Return the same problems were answered both times, so the test is paired."""
    if limit is None or not before or not now or statistics.fmean(now) <= limit.value:
        return None
    pairs = list(zip(before, now, strict=True))
    num_worse, num_better = sum(last > first for first, last in pairs), sum(last < first for first, last in pairs)
    chance = paired_chance(num_worse=num_worse, num_better=num_better)
    return _of_rate(f"guard/{rate}_fraction", before, now, limit, chance=chance)


def _of_rollouts(
    before: Sequence[bool], now: Sequence[bool], *, metric: str, limit: Threshold | None
) -> Finding | None:
    """Other prompts each time, so the test is of two shares, responses taken as independent."""
    if limit is None or not before or not now or statistics.fmean(now) <= limit.value:
        return None
    return _of_rate(metric, before, now, limit, chance=_shares_p(before, now))


def _of_format(before: Sequence[bool], now: Sequence[bool], *, limit: Threshold | None) -> Finding | None:
    if limit is None or not before or not now or statistics.fmean(now) >= limit.value:
        return None
    return _of_rate("guard/format_valid_fraction", before, now, limit, chance=_shares_p(now, before))


def _shares_p(lower: Sequence[bool], higher: Sequence[bool]) -> float:
    return unpaired_chance(num_first=sum(lower), of_first=len(lower), num_last=sum(higher), of_last=len(higher))


def _of_rate(
    metric: str, before: Sequence[bool], now: Sequence[bool], limit: Threshold, *, chance: float
) -> Finding | None:
    """Return the share beyond its limit; None if chance explains how much worse it has become."""
    if chance >= THRESHOLDS.chance:
        return None
    words = metric.removeprefix("guard/").replace("_", " ")
    last = statistics.fmean(now)
    return _breach(
        metric,
        title=f"the {words} is {last:.3f}, after {statistics.fmean(before):.3f} before training",
        evidence=f"{sum(now)} of {len(now)} now, {sum(before)} of {len(before)} before training, p = {chance:.2g}",
        number=last,
        limit=limit.value,
        threshold=limit,
    )


def _breach(
    metric: str, *, title: str, evidence: str, number: float, limit: float | None, threshold: Threshold
) -> Finding:
    bound = "at least" if threshold.source.startswith("guard.min_") else "at most"
    return Finding(
        name=metric,
        status="warning",
        title=title,
        evidence=evidence,
        threshold=f"{bound} {threshold.value:g} {threshold.unit}",
        source=threshold.source,
        number=number,
        limit=limit,
    )


def _fractions(flags: Flags, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}{rate}_fraction": statistics.fmean(getattr(flags, rate)) for rate in RATES if getattr(flags, rate)
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    given = [score for score in scores if score is not None]
    return statistics.fmean(given) if given else None
