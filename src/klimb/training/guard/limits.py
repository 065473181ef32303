"""Base metrics: what a model could do before training and should still do, their limits, and when one is broken.

A limit counts only if two things hold: the number is beyond it, and it has become worse than before training by more
than chance explains (p < 0.05, one-sided). So a model that was beyond a limit from the start is not stopped for it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from klimb.experience import Sample
from klimb.findings.statistics import paired_chance, unpaired_chance
from klimb.training.settings import GuardLimits

SIGNIFICANCE = 0.05


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


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A broken limit, in the unit of its metric.

    Attributes:
        metric: its name, as it is logged.
        value: now.
        limit: what it may be at worst.
        reason: one sentence for people.
    """

    metric: str
    value: float
    limit: float
    reason: str


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


def find_breaches(before: BaseMetrics, now: BaseMetrics, limits: GuardLimits) -> tuple[Breach, ...]:
    """Return the limits that `now` breaks; what was measured only once is not judged."""
    found = [_of_perplexity(before, now, limits.max_perplexity_ratio), _of_general(before, now, limits)]
    for rate in RATES:
        limit = getattr(limits, f"max_{rate}_fraction")
        found.append(_of_answers(getattr(before.answers, rate), getattr(now.answers, rate), rate, limit))
        if before.rollouts is not None and now.rollouts is not None:
            pair = getattr(before.rollouts, rate), getattr(now.rollouts, rate)
            found.append(_of_rollouts(*pair, metric=f"guard/rollout_{rate}_fraction", limit=limit))
    if before.rollouts is not None and now.rollouts is not None:
        pair = before.rollouts.format_valid, now.rollouts.format_valid
        found.append(_of_format(*pair, limit=limits.min_format_fraction))
    return tuple(breach for breach in found if breach is not None)


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


def _of_perplexity(before: BaseMetrics, now: BaseMetrics, limit: float | None) -> Breach | None:
    if limit is None or before.perplexity is None or now.perplexity is None:
        return None
    ratio = now.perplexity / before.perplexity
    if ratio <= limit:  # nan, which a broken model gives, is not
        return None
    return Breach(
        metric="guard/perplexity",
        value=now.perplexity,
        limit=limit * before.perplexity,
        reason=f"perplexity of the held-out text is {now.perplexity:.4g}, {ratio:.3g} times the "
        f"{before.perplexity:.4g} before training; the limit is {limit:g} times",
    )


def _of_general(before: BaseMetrics, now: BaseMetrics, limits: GuardLimits) -> Breach | None:
    """Compare means over sets, and tests over problems that were scored both times."""
    first, last = metrics_of(before).get("guard/general_mean"), metrics_of(now).get("guard/general_mean")
    if limits.max_general_drop is None or first is None or last is None or first - last <= limits.max_general_drop:
        return None
    pairs = [
        (one, other)
        for name in before.general
        for one, other in zip(before.general[name], now.general.get(name, ()), strict=False)
        if one is not None and other is not None
    ]
    num_worse, num_better = sum(last < first for first, last in pairs), sum(last > first for first, last in pairs)
    if paired_chance(num_worse=num_worse, num_better=num_better) >= SIGNIFICANCE:
        return None
    return Breach(
        metric="guard/general_mean",
        value=last,
        limit=first - limits.max_general_drop,
        reason=f"the score on general problems fell from {first:.3f} to {last:.3f} ({num_worse} problems worse, "
        f"{num_better} better); the limit is a fall of {limits.max_general_drop:g}",
    )


def _of_answers(before: Sequence[bool], now: Sequence[bool], rate: str, limit: float | None) -> Breach | None:
    """Return the same problems were answered both times, so the test is paired."""
    if limit is None or not before or not now or statistics.fmean(now) <= limit:
        return None
    pairs = list(zip(before, now, strict=True))
    num_worse, num_better = sum(last > first for first, last in pairs), sum(last < first for first, last in pairs)
    if paired_chance(num_worse=num_worse, num_better=num_better) >= SIGNIFICANCE:
        return None
    return _of_rate(f"guard/{rate}_fraction", before, now, limit)


def _of_rollouts(before: Sequence[bool], now: Sequence[bool], *, metric: str, limit: float | None) -> Breach | None:
    """Other prompts each time, so the test is of two shares, responses taken as independent."""
    if limit is None or not before or not now or statistics.fmean(now) <= limit:
        return None
    is_chance = _shares_p(before, now) >= SIGNIFICANCE
    return None if is_chance else _of_rate(metric, before, now, limit)


def _of_format(before: Sequence[bool], now: Sequence[bool], *, limit: float | None) -> Breach | None:
    if limit is None or not before or not now or statistics.fmean(now) >= limit:
        return None
    is_chance = _shares_p(now, before) >= SIGNIFICANCE
    return None if is_chance else _of_rate("guard/format_valid_fraction", before, now, limit)


def _shares_p(lower: Sequence[bool], higher: Sequence[bool]) -> float:
    return unpaired_chance(num_first=sum(lower), of_first=len(lower), num_last=sum(higher), of_last=len(higher))


def _of_rate(metric: str, before: Sequence[bool], now: Sequence[bool], limit: float) -> Breach:
    words = metric.removeprefix("guard/").replace("_", " ")
    first, last = statistics.fmean(before), statistics.fmean(now)
    return Breach(
        metric=metric,
        value=last,
        limit=limit,
        reason=f"the {words} is {last:.3f}, after {first:.3f} before training; the limit is {limit:g}",
    )


def _fractions(flags: Flags, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}{rate}_fraction": statistics.fmean(getattr(flags, rate)) for rate in RATES if getattr(flags, rate)
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    given = [score for score in scores if score is not None]
    return statistics.fmean(given) if given else None
