"""Divergences by name, and sums of them."""

import difflib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from klimb.divergences.divergence import Divergence
from klimb.divergences.kullback_leibler import FKL, JEFFREYS, RKL, UFKL, URKL
from klimb.divergences.powers import CHI_SQUARED, HELLINGER_SQUARED, JENSEN_SHANNON, alpha_divergence

DIVERGENCES: Mapping[str, Divergence] = {
    divergence.name: divergence
    for divergence in (FKL, RKL, UFKL, URKL, JEFFREYS, JENSEN_SHANNON, CHI_SQUARED, HELLINGER_SQUARED)
}


def mixture(weights: Mapping[Divergence, float]) -> Divergence:
    """Return the weighted sum of divergences: Σ weight·D. Itself an f-divergence, with f the same sum.

    Raises:
        ValueError: no terms, or a weight that is negative or not finite (the sum would not be convex).
    """
    if not weights:
        raise ValueError("a mixture needs at least one divergence, got none")
    for divergence, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {divergence.name!r} must be finite and >= 0, got {weight}")
    terms = tuple(weights.items())

    def total(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).sum(0)

    return Divergence(
        " + ".join(f"{weight:g}*{divergence.name}" for divergence, weight in terms),
        f=lambda r: total([weight * divergence.f(r) for divergence, weight in terms]),
        df=lambda r: total([weight * divergence.df(r) for divergence, weight in terms]),
        perspective=lambda w, v, x: total([weight * each.perspective(w, v, x) for each, weight in terms]),
        slope=lambda w, v, x: total([weight * each.slope(w, v, x) for each, weight in terms]),
    )


def divergence_named(name: str) -> Divergence:
    """Return the divergence of this name: `fkl`, `rkl`, …, `alpha:0.5`, or a sum such as `0.7*rkl + 0.3*fkl`.

    Raises:
        ValueError: no such name; the message lists the names there are and the nearest.
    """
    terms = [term.strip() for term in name.split("+")]
    if len(terms) == 1 and "*" not in name:
        return _single(name.strip())
    weights: dict[Divergence, float] = {}
    for term in terms:
        weight, star, rest = term.partition("*")
        divergence = _single((rest if star else weight).strip())
        weights[divergence] = weights.get(divergence, 0.0) + (_number(weight, name) if star else 1.0)
    return mixture(weights)


def _single(name: str) -> Divergence:
    if name.startswith("alpha:"):
        return alpha_divergence(_number(name.removeprefix("alpha:"), name))
    if name in DIVERGENCES:
        return DIVERGENCES[name]
    nearest = difflib.get_close_matches(name, DIVERGENCES, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"unknown divergence {name!r}{hint} There are: {', '.join(DIVERGENCES)}, alpha:<number>")


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"divergence {name!r}: {text.strip()!r} is not a number") from None
