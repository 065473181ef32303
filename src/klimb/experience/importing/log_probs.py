"""Log-probabilities of a log, and what they are of. None is invented, and one that cannot be is refused."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from klimb.experience.importing.cells import first_of, listed, number, token_ids, whole_number
from klimb.experience.importing.request_settings import (
    HELD,
    HELD_AS,
    changing_settings,
    flat_settings,
    is_choice,
    prompt_settings,
    read_setting,
)
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


_CUTS = ("top_p", "top_k", "min_p")


CHOSEN = "log-probabilities of an answer that was chosen among several"
"""Note of one that best-of-n or a beam search gave: it is no draw, so no distribution has these values."""


PROMPT_IS_ANOTHER = "the prompt was rendered otherwise, and its token ids are not recorded"
"""Note of a sample whose recorded prompt is not the text that it was drawn behind."""


NOT_REPORTED = "log-probabilities with gaps"
"""Note of a sample of which a server reported some tokens' values alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """How a response was drawn, as far as anybody says.

    Attributes:
        settings: None when nobody says the temperature, or when they cannot be.
        assumed: names of the settings that nobody states, which are taken as off.
        others: names of those that change the draw and that `settings` does not hold.
        chosen: the answer was chosen among several.
        prompt: names of arguments that make another prompt of the messages.
        note: what could not be read of a limit; empty if all could.
    """

    settings: SamplingSettings | None
    assumed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    chosen: bool = False
    prompt: tuple[str, ...] = ()
    note: str = ""


_NOTHING_STATED = Stated(settings=None)


def read_settings(request: Mapping[str, object], rules: ImportRules, row: Row, *, needs_all: bool = True) -> Stated:
    """Return how a response was drawn. What the request says comes first, then what the user states.

    A limit that is infinite, −1 or 0 is none, and one that cannot be read is noted, for nothing depends on it. Another
    setting that cannot be read is among the others: it may change the draw.

    Args:
        request: what was asked, settings in objects of their own included.
        rules: what the user states.
        row: of the request.
        needs_all: a setting out of its bounds is an error; else, as for a row without log-probabilities, it costs the
            settings alone.

    Raises:
        RowError: settings that cannot be.
    """
    asked = flat_settings(request)
    if not asked and not rules.sampling:
        return _NOTHING_STATED
    found, others, notes = _numbers(asked, rules)
    everything = {**rules.sampling, **{name: value for name, value in asked.items() if value is not None}}
    settings = None
    try:
        settings = _held(found, row)
    except RowError as error:
        if needs_all:
            raise
        notes.append(str(error))
    return Stated(
        settings=settings,
        assumed=() if settings is None else tuple(name for name in _CUTS if name not in found),
        others=(*others, *changing_settings(everything)),
        chosen=is_choice(everything),
        prompt=prompt_settings(asked),
        note="; ".join(notes),
    )


def _numbers(asked: Mapping[str, object], rules: ImportRules) -> tuple[dict[str, float], list[str], list[str]]:
    """Return the settings of a sample that are stated, those that cannot be read, and notes on limits like that."""
    found: dict[str, float] = {}
    others: list[str] = []
    notes: list[str] = []
    there = {HELD_AS.get(name) for name in (*asked, *rules.sampling)}
    for name in (name for name in HELD if name in there):
        try:
            value = _stated_in((asked, rules.sampling), HELD[name])
        except ValueError as error:
            notes.append(f"{name} cannot be read: {error}")
            others += [name] if name != "max_new_tokens" else []
            continue
        if value is not None:
            found[name] = value
    return found, others, notes


def _stated_in(places: Sequence[Mapping[str, object]], names: Sequence[str]) -> float | None:
    for place in places:
        if (value := read_setting(first_of(place, *names))) is not None:
            return value
    return None


def _held(found: Mapping[str, float], row: Row) -> SamplingSettings | None:
    """Return the settings as a sample holds them; None without a temperature.

    Raises:
        RowError: they cannot be.
    """
    if "temperature" not in found:
        return None
    held: dict[str, Any] = {
        name: number(found[name], what=name, row=row)
        for name in ("temperature", "top_p", "min_p", "repetition_penalty")
        if name in found
    }
    top_k = whole_number(found.get("top_k", 0), what="top_k", row=row)
    limit, least = found.get("max_new_tokens", NO_LIMIT), found.get("min_new_tokens", 0)
    try:
        held |= {
            "top_k": max(0, top_k),  # servers write -1 for all
            "max_new_tokens": int(limit) if 1 <= limit < NO_LIMIT else NO_LIMIT,
            "min_new_tokens": int(least) if 0 < least < NO_LIMIT else 0,
        }
        return _settings_of(tuple(held.items()))
    except ValueError as error:
        raise RowError("sampler settings that cannot be", str(error)) from error


@lru_cache(maxsize=1024)
def _settings_of(held: tuple[tuple[str, Any], ...]) -> SamplingSettings:
    """Of most files all rows share one value, whose checks cost more than all other reading of a request."""
    return SamplingSettings(**dict(held))


def has_gaps(values: object) -> bool:
    """Tell whether a server did not report the value of some token: null, or the −9999 that stands for it."""
    return any(value is None or value == NOT_IN_TOP for value in listed(values) or ())


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
    if value > LARGEST:
        raise RowError("a log-probability above 0", f"token {position}: {value}; is it a probability or a loss?")
    if value < SMALLEST:
        raise RowError("a log-probability below -100", f"token {position}: {value}; a drawn token cannot be that rare")
    return min(0.0, float(value))


def checked_support(
    values: object, drawn_ids: Sequence[int], *, num_vocab: int | None
) -> tuple[tuple[int, ...], ...] | None:
    """Return the ids that could be drawn, a set for each drawn token; None where none are recorded.

    Raises:
        RowError: another number of sets than of tokens, one without the token that was drawn or with an id twice, or an
            id beyond the vocabulary.
    """
    if values is None:
        return None
    sets = [token_ids(each, what="the sets of a sampling mask") for each in listed(values) or ()]
    if len(sets) != len(drawn_ids):
        raise RowError("another number of sampling masks than of tokens", f"{len(sets)} for {len(drawn_ids)} token ids")
    for position, (token, kept) in enumerate(zip(drawn_ids, sets, strict=True)):
        if token not in kept or len(set(kept)) < len(kept):
            what = "does not hold the token that was drawn" if token not in kept else "holds a token twice"
            raise RowError("a sampling mask that cannot be", f"that of token {position} {what}: {list(kept)!r}"[:120])
        if num_vocab is not None and max(kept) >= num_vocab:
            raise RowError("a token id beyond the vocabulary", f"{max(kept)}, and the model has {num_vocab} tokens")
    return tuple(sets)


def provenance_of(
    settings: SamplingSettings | None, rules: ImportRules, others: Sequence[str], *, prompt: Sequence[str] = ()
) -> tuple[Provenance, str]:
    """Return what the recorded values are worth, and why they are not log μ if they are not.

    log μ is the log-probability behind the prompt and under the settings that the token was drawn with. Processed
    values are that; raw ones are only when the settings change nothing.

    Args:
        settings: that a sample holds; None if the temperature is not known.
        rules: what the user states of the values.
        others: names of further settings that change the draw.
        prompt: what makes the recorded prompt another than the one drawn behind; empty if its token ids are recorded.
    """
    if prompt:
        return "estimated", f"{PROMPT_IS_ANOTHER}: {', '.join(prompt)}"
    if others and rules.log_probs == "raw":
        return "estimated", f"raw log-probabilities, drawn with {', '.join(others)}"
    if settings is None:
        return "estimated", UNKNOWN_TEMPERATURE
    if rules.log_probs == "processed" or settings.draws_at(1.0):
        return "sampler", ""
    warmed = ("temperature",) if settings.temperature != 1 else ()
    changed = [f"{name} {getattr(settings, name):g}" for name in (*warmed, *settings.changes)]
    return "estimated", f"raw log-probabilities, drawn with {', '.join(changed)}"
