"""What the guard's metrics say was lost between before training and its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klimb.workbench.findings.thresholds import Thresholds
from klimb.workbench.report.record import RunRecord, is_number

RATES: Mapping[str, str] = {
    "refusal_fraction": "refusals of general problems",
    "empty_fraction": "empty answers to general problems",
    "repetition_fraction": "answers to general problems that end in a loop",
    "rollout_refusal_fraction": "refusals in the rollouts",
    "rollout_empty_fraction": "empty rollouts",
    "rollout_repetition_fraction": "rollouts that end in a loop",
}
"""Guarded shares of responses that should not grow, in words."""

MOST_EVENTS = 3


@dataclass(frozen=True)
class Loss:
    """One loss in words with its numbers, and whether it is a heavy one."""

    words: str
    is_bad: bool = False


def guarded_losses(record: RunRecord, limits: Thresholds) -> list[Loss]:
    """What the guard measured worse at the end than before, by more than the limits, and what it did about it."""
    before, after = _named(record.guard.get("before")), _named(record.guard.get("after")) or _newest(record)
    losses = [_perplexity(before, after, limits), _general(before, after, limits), _format(before, after, limits)]
    losses += [_rate(name, before, after, limits) for name in RATES]
    measured = [loss for loss in losses if loss is not None]
    return measured + _events(record, are_warnings_told=not measured)


def _perplexity(before: Mapping[str, float], after: Mapping[str, float], limits: Thresholds) -> Loss | None:
    pair = _pair("perplexity", before, after)
    if pair is None or pair[0] <= 0 or pair[1] / pair[0] <= limits.perplexity_ratio:
        return None
    ratio = pair[1] / pair[0]
    rise = f"{pair[0]:.3g} → {pair[1]:.3g} ({ratio:.2f} times, limit {limits.perplexity_ratio:g})"
    return Loss(f"perplexity of the held-out text {rise}", is_bad=ratio > limits.perplexity_ratio_bad)


def _general(before: Mapping[str, float], after: Mapping[str, float], limits: Thresholds) -> Loss | None:
    pair = _pair("general_mean", before, after)
    if pair is None or pair[0] - pair[1] <= limits.general_drop:
        return None
    return Loss(f"general tasks {pair[0]:.1%} → {pair[1]:.1%} (limit −{limits.general_drop:.0%})", is_bad=True)


def _format(before: Mapping[str, float], after: Mapping[str, float], limits: Thresholds) -> Loss | None:
    pair = _pair("format_valid_fraction", before, after)
    if pair is None or pair[0] - pair[1] <= limits.rate_change:
        return None
    return Loss(f"answers in the right format {pair[0]:.1%} → {pair[1]:.1%} (limit −{limits.rate_change:.0%})")


def _rate(name: str, before: Mapping[str, float], after: Mapping[str, float], limits: Thresholds) -> Loss | None:
    pair = _pair(name, before, after)
    if pair is None or pair[1] - pair[0] <= limits.rate_change:
        return None
    return Loss(f"{RATES[name]} {pair[0]:.1%} → {pair[1]:.1%} (limit +{limits.rate_change:.0%})")


def _events(record: RunRecord, *, are_warnings_told: bool) -> list[Loss]:
    """What the guard did: the newest few. Its warnings say again what was measured."""
    events = [event for event in record.guard.get("events") or () if isinstance(event, Mapping)]
    told = [event for event in events if are_warnings_told or event.get("action") != "warn"]
    return [
        Loss(
            f"the guard's action at step {event.get('step', '?')} was {event.get('action', '?')}: "
            f"{event.get('reason') or event.get('metric', 'no reason given')}",
            is_bad=event.get("action") == "stop",
        )
        for event in told[-MOST_EVENTS:]
    ]


def _pair(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float] | None:
    return (before[name], after[name]) if name in before and name in after else None


def _newest(record: RunRecord) -> Mapping[str, float]:
    """Of a run that has not been measured at its end: the newest row that the guard wrote into."""
    guarded = (row for row in reversed(record.rows) if any(name.startswith("guard/") for name in row))
    return _named(next(guarded, {}))


def _named(measured: Any) -> dict[str, float]:
    """The finite numbers by name, without `guard/`."""
    if not isinstance(measured, Mapping):
        return {}
    return {str(name).removeprefix("guard/"): float(value) for name, value in measured.items() if is_number(value)}
