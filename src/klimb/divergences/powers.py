"""Divergences made of powers of r = π/ref, and Jensen–Shannon: bounded or heavy-tailed where the KLs are not.

Source: Cressie and Read 1984 (the α-family); Csiszár 1967. α → 0 is UFKL, α → 1 is URKL.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from klimb.divergences.divergence import Divergence, bound
from klimb.divergences.kullback_leibler import UFKL, URKL
from klimb.divergences.names import check_alpha

_LOG_2 = math.log(2)


CHI_SQUARED = Divergence(
    "chi-squared",
    f=lambda r: (r - 1).square(),
    df=lambda r: 2 * (r - 1),
    perspective=lambda w, v, x: (w - v) * bound(x).expm1(),
    slope=lambda w, v, x: 2 * w * bound(x).expm1(),
)
"""Pearson χ²(π‖ref) = E_ref[(r − 1)²]: the variance of the weight π/ref."""


HELLINGER_SQUARED = Divergence(
    "hellinger-squared",
    f=lambda r: (r.sqrt() - 1).square() / 2,
    df=lambda r: (1 - r.rsqrt()) / 2,
    perspective=lambda w, v, x: v * (bound(x) / 2).expm1().square() / 2,
    slope=lambda w, v, x: -w * (-bound(x) / 2).expm1() / 2,
)
"""Squared Hellinger distance ½·Σ(√π − √ref)², between 0 and 1 for normalised policies."""


def _jensen_shannon_f(r: Tensor) -> Tensor:
    return (r * r.log() - (r + 1) * ((r + 1) / 2).log()) / 2


JENSEN_SHANNON = Divergence(
    "jensen-shannon",
    f=_jensen_shannon_f,
    df=lambda r: (2 * r / (r + 1)).log() / 2,
    perspective=lambda w, v, x: (w * (_LOG_2 - F.softplus(-x)) + v * (_LOG_2 - F.softplus(x))) / 2,
    slope=lambda w, v, x: w * (_LOG_2 - F.softplus(-x)) / 2,
)
"""Jensen–Shannon ½KL(π‖m) + ½KL(ref‖m) with m = (π + ref)/2: between 0 and log 2 nats for normalised policies."""


def alpha_divergence(alpha: float) -> Divergence:
    """Return the α-divergence: f(r) = (r^α − α·r − (1 − α)) / (α·(α − 1)).

    α = 2 is χ²/2, α = ½ is 4 times squared Hellinger, α = −1 is Neyman's χ²/2; the limits α → 0 (UFKL) and
    α → 1 (URKL) are returned in closed form.

    Raises:
        ValueError: alpha is not finite, or so close to 0 or 1 that the quotient loses its digits.
    """
    check_alpha(alpha)
    if alpha in (0, 1):
        return UFKL if alpha == 0 else URKL
    scale = alpha * (alpha - 1)

    def perspective(w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return (v * (alpha * bound(x)).expm1() - alpha * (w - v)) / scale

    return Divergence(
        f"alpha:{alpha:g}",
        f=lambda r: (torch.pow(r, alpha) - alpha * r - (1 - alpha)) / scale,
        df=lambda r: (torch.pow(r, alpha - 1) - 1) / (alpha - 1),
        perspective=perspective,
        slope=lambda w, v, x: w * ((alpha - 1) * bound(x)).expm1() / (alpha - 1),
    )
