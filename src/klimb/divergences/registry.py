"""Divergences by name, and sums of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from klimb.divergences.divergence import Divergence
from klimb.divergences.kullback_leibler import FKL, JEFFREYS, RKL, UFKL, URKL
from klimb.divergences.names import Term, check_weight, parse_divergence
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
        check_weight(divergence.name, weight)
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
    terms = parse_divergence(name)
    if len(terms) == 1 and terms[0].weight is None:
        return _single(terms[0])
    weights: dict[Divergence, float] = {}
    for term in terms:
        divergence = _single(term)
        weights[divergence] = weights.get(divergence, 0.0) + (1.0 if term.weight is None else term.weight)
    return mixture(weights)


def _single(term: Term) -> Divergence:
    return DIVERGENCES[term.name] if term.alpha is None else alpha_divergence(term.alpha)
