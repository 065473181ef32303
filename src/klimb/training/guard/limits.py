"""The limits of the base metrics, and when one is broken.

A limit counts only if two things hold: the number is beyond it, and it has become worse than before training by more
than chance explains, at the level of the check. So a model that was beyond a limit from the start is not stopped for
it, and a run in which nothing changes is seldom stopped at all, however often it is looked at.
"""

from collections.abc import Sequence

from klimb.findings.finding import Finding
from klimb.findings.guard.thresholds import Thresholds
from klimb.findings.statistics import AlarmBudget
from klimb.findings.statistics.proportions import share_ends
from klimb.findings.thresholds import Threshold, rows_of
from klimb.training.guard.base_metrics import BaseMetrics, share_of
from klimb.training.guard.comparison import FORMAT, GENERAL, LIMIT_OF, Comparison, compare
from klimb.training.guard.settings import GuardSettings

UNITS = {name: row.unit for name, row in rows_of(Thresholds).items()} | {"min_format_fraction": "of the rollouts"}
"""Key of `[guard]` -> what its limit counts."""


USUAL_CHECKS = 20
"""Checks of a run, where nothing is known of it."""


def find_breaches(
    before: BaseMetrics, now: BaseMetrics, settings: GuardSettings, *, level: float | None = None
) -> tuple[Finding, ...]:
    """Return the limits that `now` breaks; what was measured only once is not judged.

    Args:
        before: the first measurement.
        now: the newest.
        settings: the limits.
        level: chance that this check may have of any false alarm; None takes that of a check among 20.

    Raises:
        ValueError: the prompts of rollouts are not known.
    """
    if level is None:
        level = AlarmBudget(settings.false_alarm_rate).level(USUAL_CHECKS)
    return breaches_in(before, now, settings, compare(before, now, settings, level=level))


def breaches_in(
    before: BaseMetrics, now: BaseMetrics, settings: GuardSettings, comparisons: Sequence[Comparison]
) -> tuple[Finding, ...]:
    """Return the limits that are broken, of numbers that have been compared already."""
    found = [
        _of_perplexity(before, now, settings),
        *(_of_comparison(each, settings) for each in comparisons),
        *(_of_check(check, before, now, settings) for check in now.checks),
    ]
    return tuple(breach for breach in found if breach is not None)


def threshold_of(name: str, settings: GuardSettings) -> Threshold | None:
    """Return the limit of this name with its unit, and the key that sets it; None if there is no such limit."""
    value = getattr(settings, name)
    return None if value is None else Threshold(value, UNITS[name], f"guard.{name}")


def _of_perplexity(before: BaseMetrics, now: BaseMetrics, settings: GuardSettings) -> Finding | None:
    """Compare the numbers themselves: nothing in a perplexity is drawn."""
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


def _of_comparison(compared: Comparison, settings: GuardSettings) -> Finding | None:
    limit = threshold_of(LIMIT_OF[compared.name], settings)
    if limit is None or not compared.is_worse or not _is_beyond(compared, limit.value):
        return None
    is_general = compared.name == GENERAL
    words = compared.name.removeprefix("guard/").replace("_", " ")
    return _breach(
        compared.name,
        title=f"the score on general problems fell from {compared.before:.3f} to {compared.now:.3f}"
        if is_general
        else f"the {words} is {compared.now:.3f}, after {compared.before:.3f} before training",
        evidence=compared.evidence,
        number=compared.now,
        limit=compared.before - limit.value if is_general else limit.value,
        threshold=limit,
    )


def _of_check(check: str, before: BaseMetrics, now: BaseMetrics, settings: GuardSettings) -> Finding | None:
    """Compare the shares themselves: what must never happen is not to be shown twenty times first."""
    share, earlier = share_of(now.checks[check]), share_of(before.checks.get(check, ()))
    if share is None or earlier is None or share <= max(earlier, settings.max_violation_fraction):
        return None
    number = list(now.checks).index(check) + 1
    told = [_counted(each.checks[check]) for each in (now, before)]
    return _breach(
        f"guard/check_violations/{number}",
        title=f"{check!r} is violated by {share:.1%} of the answers to held-out prompts",
        evidence=f"{told[0]} now, {told[1]} before",
        number=share,
        limit=settings.max_violation_fraction,
        threshold=Threshold(settings.max_violation_fraction, "of the answers", "guard.max_violation_fraction"),
    )


def _counted(violations: Sequence[bool | None]) -> str:
    """`3 of 40 (95 % interval 2% to 19%)`."""
    judged = [each for each in violations if each is not None]
    share = sum(judged) / len(judged)
    low, high = share_ends(share, len(judged))
    return f"{sum(judged)} of {len(judged)} (95 % interval {low:.0%} to {high:.0%})"


def _is_beyond(compared: Comparison, limit: float) -> bool:
    if compared.name == GENERAL:
        return compared.before - compared.now > limit
    return compared.now < limit if compared.name == FORMAT else compared.now > limit


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
