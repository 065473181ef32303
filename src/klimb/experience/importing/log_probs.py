"""Log-probabilities of a log, and what they are of. None is invented, and one that cannot be is refused."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from klimb.experience.importing.cells import listed, mapping, number, whole_number
from klimb.experience.importing.rules import ImportRules
from klimb.experience.reading.records import Row, RowError
from klimb.experience.samples import Provenance, SamplingSettings

LARGEST = 1e-4
"""Nats. A log-probability up to here is 0 and rounding; above, it is none."""


SMALLEST = -100.0
"""Nats. A token that was drawn cannot have been less likely than e^-100."""


NOT_IN_TOP = -9999.0
"""What vLLM and OpenAI write for a token that was not among those reported."""


UNKNOWN_TEMPERATURE = "the sampler's temperature is not known"
"""Note of log-probabilities that cannot be said to be log μ."""


NO_LIMIT = 2**31 - 1
"""`max_new_tokens` of a request that sets none."""


ALIASES: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "min_p": ("min_p",),
    "max_new_tokens": ("max_new_tokens", "max_completion_tokens", "max_tokens", "maxTokens"),
    "min_new_tokens": ("min_new_tokens", "min_tokens"),
    "repetition_penalty": ("repetition_penalty",),
}


_CUTS = ("top_p", "top_k", "min_p")


_NEUTRAL: Mapping[str, float] = {"frequency_penalty": 0, "presence_penalty": 0}


_CONSTRAINTS = ("logit_bias", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs")


def sampling_settings(
    request: Mapping[str, object], rules: ImportRules, row: Row
) -> tuple[SamplingSettings | None, tuple[str, ...]]:
    """Return the settings a response was drawn with, and the names of those not stated, which are taken as off.

    What the request says comes first, then what the user states. None when neither says the temperature.
    """
    found: dict[str, float] = dict(rules.sampling)
    for name, aliases in ALIASES.items():
        value = next((request[alias] for alias in aliases if request.get(alias) is not None), None)
        if value is not None:
            found[name] = number(value, what=name, row=row)
    if "temperature" not in found:
        return None, ()
    found["top_k"] = max(0, whole_number(found.get("top_k", 0), what="top_k", row=row))  # servers write -1 for all
    limit = whole_number(found.get("max_new_tokens", NO_LIMIT), what="max_new_tokens", row=row)
    least = whole_number(found.get("min_new_tokens", 0), what="min_new_tokens", row=row)
    stated: dict[str, Any] = {
        name: found[name] for name in ("temperature", "top_p", "min_p", "repetition_penalty") if name in found
    }
    try:
        settings = SamplingSettings(
            **stated, top_k=int(found["top_k"]), max_new_tokens=int(limit), min_new_tokens=int(least)
        )
    except ValueError as error:
        raise RowError("sampler settings that cannot be", str(error)) from error
    named = {name for name, aliases in ALIASES.items() if any(request.get(alias) is not None for alias in aliases)}
    return settings, tuple(name for name in _CUTS if name not in named and name not in rules.sampling)


def other_settings(request: Mapping[str, object]) -> tuple[str, ...]:
    """Names of the request's settings that change the distribution and that `SamplingSettings` does not hold."""
    penalties = [name for name, neutral in _NEUTRAL.items() if request.get(name) not in (None, neutral)]
    constraints = [name for name in _CONSTRAINTS if request.get(name)]
    is_constrained = mapping(request.get("response_format")).get("type") not in (None, "text")
    return (*penalties, *constraints, *(("response_format",) if is_constrained else ()))


def checked_log_mu(values: object, num_ids: int) -> tuple[float, ...]:
    """Return the values, one a token; those above 0 by rounding alone are 0.

    Raises:
        RowError: another number of them than of token ids, or one that no drawn token can have.
    """
    numbers = listed(values)
    if numbers is None:
        raise RowError("log-probabilities are not a list", f"got {type(values).__name__}")
    if len(numbers) != num_ids:
        raise RowError("another number of log-probabilities than of tokens", f"{len(numbers)} for {num_ids} token ids")
    return tuple(_checked(value, position) for position, value in enumerate(numbers))


def _checked(value: object, position: int) -> float:
    if type(value) is float and SMALLEST <= value <= 0:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("a log-probability that is no number", f"token {position}: {value!r}"[:80])
    if math.isnan(value):
        raise RowError("a log-probability that is NaN", f"token {position}")
    if value == NOT_IN_TOP:
        raise RowError("a log-probability of -9999", f"token {position}: servers write it for what they do not report")
    if value > LARGEST:
        raise RowError("a log-probability above 0", f"token {position}: {value}; is it a probability or a loss?")
    if value < SMALLEST:
        raise RowError("a log-probability below -100", f"token {position}: {value}; a drawn token cannot be that rare")
    return min(0.0, float(value))


def provenance_of(
    settings: SamplingSettings | None, rules: ImportRules, others: Sequence[str]
) -> tuple[Provenance, str]:
    """Return what the recorded values are worth, and why they are not log μ if they are not.

    log μ is the log-probability under the settings that the token was drawn with. Processed values are that; raw ones
    are only when the settings change nothing.
    """
    if settings is None:
        return "estimated", UNKNOWN_TEMPERATURE
    if rules.log_probs == "processed":
        return "sampler", ""
    if others:
        return "estimated", f"raw log-probabilities, drawn with {', '.join(others)}"
    if settings.draws_at(1.0):
        return "sampler", ""
    warmed = ("temperature",) if settings.temperature != 1 else ()
    changed = [f"{name} {getattr(settings, name):g}" for name in (*warmed, *settings.changes)]
    return "estimated", f"raw log-probabilities, drawn with {', '.join(changed)}"
