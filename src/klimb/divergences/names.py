"""Divergences by name, and sums of them: what a name says, read without torch."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

ALPHA = "alpha:"


SLOPES_AT_REFERENCE: Mapping[str, float] = {
    "fkl": -1.0,
    "rkl": 1.0,
    "ufkl": 0.0,
    "urkl": 0.0,
    "jeffreys": 0.0,
    "jensen-shannon": 0.0,
    "chi-squared": 0.0,
    "hellinger-squared": 0.0,
}
"""Name -> f′(1), the weight of ∇log π in the divergence's gradient where π = ref = μ. It is 0 for every alpha."""


@dataclass(frozen=True)
class Term:
    """One divergence of a sum.

    Attributes:
        weight: what it is multiplied with; None where the name has no `*`.
        name: a key of `SLOPES_AT_REFERENCE`; empty for an α-divergence.
        alpha: of an α-divergence; None for the others.
    """

    weight: float | None
    name: str
    alpha: float | None = None


@dataclass(frozen=True)
class SlopeAtReference:
    """The slope of a divergence, or of what stands in its place, where π = ref = μ.

    Attributes:
        constant: f′(1).
        is_forward_kl: it is forward KL or a multiple of it: its slope at ref = μ does not read w.
    """

    constant: float
    is_forward_kl: bool


def parse_divergence(name: str) -> tuple[Term, ...]:
    """Return the terms of a name: `fkl`, `alpha:0.5`, or a sum such as `0.7*rkl + 0.3*fkl`.

    Raises:
        ValueError: no such name; the message lists the names there are and the nearest.
    """
    return tuple(_term(part.strip(), name) for part in name.split("+"))


def check_divergence_name(name: str) -> None:
    """Return if there is a divergence of this name.

    Raises:
        ValueError: there is none; or an α or a weight that none can have.
    """
    terms = parse_divergence(name)
    for term in terms:
        if term.alpha is not None:
            check_alpha(term.alpha)
        if term.weight is not None:
            check_weight(term.name or f"{ALPHA}{term.alpha:g}", term.weight)


def check_alpha(alpha: float) -> None:
    """Return if there is an α-divergence of this α.

    Raises:
        ValueError: it is not finite, or so close to 0 or 1 that a quotient would lose its digits.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be a finite number, got {alpha}")
    if alpha not in (0, 1) and min(abs(alpha), abs(alpha - 1)) < 1e-3:
        raise ValueError(f"alpha = {alpha} is too close to a limit to compute; use exactly 0 (ufkl) or 1 (urkl)")


def check_weight(name: str, weight: float) -> None:
    """Return if a divergence can have this weight in a sum.

    Raises:
        ValueError: it is negative or not finite: the sum would not be convex.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"the weight of {name!r} must be finite and >= 0, got {weight}")


def slope_of_divergence(name: str) -> SlopeAtReference:
    """Return what the slope of the named divergence is where π = ref = μ."""
    parts = [(1.0 if term.weight is None else term.weight, term.name) for term in parse_divergence(name)]
    return SlopeAtReference(
        constant=sum(weight * SLOPES_AT_REFERENCE.get(each, 0.0) for weight, each in parts),
        is_forward_kl={each for weight, each in parts if weight} == {"fkl"},
    )


def _term(part: str, whole: str) -> Term:
    weight, star, rest = part.partition("*")
    name = (rest if star else part).strip()
    factor = _number(weight, whole) if star else None
    if name.startswith(ALPHA):
        return Term(factor, "", _number(name.removeprefix(ALPHA), name))
    if name in SLOPES_AT_REFERENCE:
        return Term(factor, name)
    nearest = difflib.get_close_matches(name, SLOPES_AT_REFERENCE, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"unknown divergence {name!r}{hint} There are: {', '.join(SLOPES_AT_REFERENCE)}, alpha:<number>")


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"divergence {name!r}: {text.strip()!r} is not a number") from None
