"""Divergences of a policy from its reference: f, f′, perspective and slope. Depends on torch only."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.divergences.divergence import Divergence, bound
    from klimb.divergences.kullback_leibler import FKL, JEFFREYS, RKL, UFKL, URKL
    from klimb.divergences.powers import CHI_SQUARED, HELLINGER_SQUARED, JENSEN_SHANNON, alpha_divergence
    from klimb.divergences.registry import DIVERGENCES, divergence_named, mixture

__all__ = [
    "CHI_SQUARED",
    "DIVERGENCES",
    "FKL",
    "HELLINGER_SQUARED",
    "JEFFREYS",
    "JENSEN_SHANNON",
    "RKL",
    "UFKL",
    "URKL",
    "Divergence",
    "alpha_divergence",
    "bound",
    "divergence_named",
    "mixture",
]

open_lazily(__name__)
