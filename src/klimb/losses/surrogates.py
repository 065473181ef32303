"""The two estimators of one gradient.

    differentiable   L = −w̄·A + β·perspective(w, v, x)            differentiated as it stands
    reinforce        L = −sg(w̄·A − β·slope(w, v, x))·log π         sg = no gradient

w̄ is the clipped weight. Without a clip both have the gradient −(w·A − β·slope)·∇log π, sample by sample.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.divergences import bound
from klimb.losses.clips import Clip, Clipped
from klimb.losses.penalties import Penalty
from klimb.losses.units import Units

Estimator = Literal["reinforce", "differentiable"]
ESTIMATORS: tuple[str, ...] = get_args(Estimator)


def differentiable(
    units: Units, penalty: Penalty, *, beta: float, clip: Clip, weight_bound: float
) -> tuple[Float[Tensor, "batch units"], Clipped]:
    """−w̄·A + β·perspective. The clip acts on w·A alone, by the sign of A; the divergence is never clipped.

    Source: arXiv 2505.17508, sections 3 and E; its Algorithm 1 clips the regularised advantage and differentiates it
    too, so that the divergence enters the gradient a second time (docs/exactness.md).
    """
    w = bound(units.log_w, weight_bound).exp()
    detached = w.detach()
    clipped = clip(detached, units.advantages >= 0, units.log_pi.detach())
    log_w = units.log_w
    live = torch.where(clipped.keep, log_w, log_w.detach())
    bounded = clipped.w * (1 + live - live.detach())
    losses = -bounded * units.advantages
    if beta == 0:
        return losses, clipped
    v = bound(units.log_v, weight_bound).exp()
    return losses + beta * penalty.perspective(w, v, log_w - units.log_v), clipped


def reinforce(
    units: Units, penalty: Penalty, *, beta: float, clip: Clip, weight_bound: float
) -> tuple[Float[Tensor, "batch units"], Clipped]:
    """−(w̄·A − β·slope)·log π with a weight that carries no gradient, clipped by the sign of that weight.

    With `DualClip` this is Algorithm 2 (RPG-style clip), its values in the clipped branches included.

    Source: arXiv 2505.17508, algorithm 2 and section F.
    """
    log_w = units.log_w.detach()
    w = bound(log_w, weight_bound).exp()
    regularisation = torch.zeros_like(w)
    if beta != 0:
        v = bound(units.log_v, weight_bound).exp()
        regularisation = -beta * penalty.slope(w, v, log_w - units.log_v)
    clipped = clip(w, w * units.advantages + regularisation >= 0, units.log_pi.detach())
    weight = clipped.w * units.advantages + clipped.slope_share * regularisation
    live = torch.where(clipped.keep, units.log_pi, units.log_pi.detach())
    return -weight * live, clipped
