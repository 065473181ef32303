"""Base metrics: what a model could do before training and should still do, as it was measured once."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

from klimb.experience import Sample

RATES = ("refusal", "empty", "repetition")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is true of each of some responses, in their order.

    Attributes:
        refusal: it declines to answer.
        empty: it holds nothing but white space.
        repetition: it ends in a loop.
        format_valid: it has the form asked for; empty when none is asked for.
        prompts: the prompt that it answers, any text or number that is the same for the same prompt. Answers to one
            prompt are not independent, prompts are: rollouts cannot be tested without. Empty where each has its own.
    """

    refusal: tuple[bool, ...] = ()
    empty: tuple[bool, ...] = ()
    repetition: tuple[bool, ...] = ()
    format_valid: tuple[bool, ...] = ()
    prompts: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompts:
            return
        for name in (*RATES, "format_valid"):
            number = len(getattr(self, name))
            if number not in (0, len(self.prompts)):
                raise ValueError(
                    f"Flags.{name} is of {number} responses and prompts of {len(self.prompts)}; give one prompt for "
                    "each response, in the same order"
                )

    def picked(self, places: Sequence[int]) -> "Flags":
        """Return the flags of the responses at these places."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return Flags(**{name: tuple(each[place] for place in places) if each else () for name, each in values.items()})


@dataclass(frozen=True, kw_only=True)
class BaseMetrics:
    """One measurement.

    Attributes:
        perplexity: of the held-out text; None when it is not measured.
        general: name of a set of general problems -> of each, 1 or 0 where the set says right or wrong, else its
            score; None without one.
        answers: of the answers to the general problems.
        rollouts: of rollouts, with their prompts; None when none were drawn.
        checks: check of the user's own -> whether each answer to a held-out prompt violates it; None where the check
            could not judge it.
    """

    perplexity: float | None = None
    general: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    answers: Flags = Flags()
    rollouts: Flags | None = None
    checks: Mapping[str, tuple[bool | None, ...]] = field(default_factory=dict)


@runtime_checkable
class MeasuresBase(Protocol):
    """Measures the policy that a run trains. The same weights give the same numbers, and no state of the run moves."""

    def measure(self) -> BaseMetrics:
        """Everything but the rollouts, of the policy as it stands."""
        ...

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        """Return the flags of what a step drew; the guard knows their prompts."""
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
    for number, violations in enumerate(measured.checks.values(), start=1):
        if (share := share_of(violations)) is not None:
            metrics[f"guard/check_violations/{number}"] = share
    if measured.rollouts is not None:
        metrics |= _fractions(measured.rollouts, "guard/rollout_")
        if measured.rollouts.format_valid:
            metrics["guard/format_valid_fraction"] = statistics.fmean(measured.rollouts.format_valid)
    return metrics


def share_of(violations: Sequence[bool | None]) -> float | None:
    """Return the share of the judged answers that violate a check; None if none could be judged."""
    return _mean(violations)


def newest_of(steps: Sequence[Flags], *, num_prompts: int) -> Flags:
    """Return the newest step's rollouts, with those of the steps before it until there are so many prompts.

    A prompt that was drawn in several steps counts with its newest answers alone: otherwise it had more of them than
    others, and its mean another spread.
    """
    parts: list[Flags] = []
    seen: set[str | int] = set()
    for flags in reversed(steps):
        if parts and len(seen) >= num_prompts:
            break
        parts.append(flags.picked([place for place, prompt in enumerate(flags.prompts) if prompt not in seen]))
        seen.update(flags.prompts)
    return Flags(**dict(_joined(parts)))


def base_metrics_from(stored: Mapping[str, Any]) -> BaseMetrics:
    """Return what `dataclasses.asdict` made JSON of."""
    return BaseMetrics(
        perplexity=stored["perplexity"],
        general={name: tuple(scores) for name, scores in stored["general"].items()},
        answers=flags_from(stored["answers"]),
        rollouts=None if stored["rollouts"] is None else flags_from(stored["rollouts"]),
        checks={name: tuple(values) for name, values in stored.get("checks", {}).items()},
    )


def flags_from(stored: Mapping[str, Any]) -> Flags:
    """Return what `dataclasses.asdict` made JSON of."""
    return Flags(**{name: tuple(values) for name, values in stored.items()})


def _joined(parts: Sequence[Flags]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for part in fields(Flags):
        yield part.name, tuple(value for flags in reversed(parts) for value in getattr(flags, part.name))


def _fractions(flags: Flags, prefix: str) -> dict[str, float]:
    return {
        f"{prefix}{rate}_fraction": statistics.fmean(getattr(flags, rate)) for rate in RATES if getattr(flags, rate)
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    given = [score for score in scores if score is not None]
    return statistics.fmean(given) if given else None
