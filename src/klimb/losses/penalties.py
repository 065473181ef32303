"""Penalties that stand where a divergence does, but whose gradient is not a divergence's.

Kept for the baselines that use them, under a name that says what they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from klimb.divergences import Divergence, bound, divergence_named


@runtime_checkable
class Penalty(Protocol):
    """What an `Objective` subtracts, times β: a value in (w, v, x) and the weight of ∇log π in its gradient.

    A `Divergence` is one whose gradient is that of its value under the policy.
    """

    @property
    def name(self) -> str:
        """Shown in logs and errors."""
        ...

    def perspective(self, w: Tensor, v: Tensor, x: Tensor, /) -> Tensor:
        """The value per unit, differentiable in w and x."""
        ...

    def slope(self, w: Tensor, v: Tensor, x: Tensor, /) -> Tensor:
        """The weight of ∇log π in its gradient."""
        ...


@dataclass(frozen=True)
class K3InLoss:
    """GRPO's KL term: k3(ref/π) = ref/π − 1 − log(ref/π), added to the loss without the weight w.

    On-policy its value estimates RKL, KL(π‖ref), but its gradient is that of FKL, KL(ref‖π); off-policy it is neither.
    The term with RKL's value and gradient is w·k3, which is `urkl`.

    Source: arXiv 2402.03300, equation 4; arXiv 2505.17508, section 3 and appendix D.
    """

    name: str = "k3-in-loss"

    def perspective(self, w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """exp(−x) − 1 + x."""
        del w, v
        return (-bound(x)).expm1() + x

    def slope(self, w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """1 − exp(−x)."""
        del w, v
        return -(-bound(x)).expm1()


@dataclass(frozen=True)
class K2InLoss:
    """REINFORCE++-baseline's KL term: k2 = ½·(log π/ref)², added to the loss without the weight w.

    On-policy its gradient x·∇log π is that of RKL, KL(π‖ref), although its value is not; off-policy it is neither.

    Source: arXiv 2501.03262, the baseline variant; http://joschu.net/blog/kl-approx.html (k2).
    """

    name: str = "k2-in-loss"

    def perspective(self, w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """½·x²."""
        del w, v
        return 0.5 * x**2

    def slope(self, w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        """The log-ratio x."""
        del w, v
        return x


PENALTIES: Mapping[str, K2InLoss | K3InLoss] = {"k2-in-loss": K2InLoss(), "k3-in-loss": K3InLoss()}


def penalty_named(name: str) -> Divergence | K2InLoss | K3InLoss:
    """The divergence of this name, `k2-in-loss` or `k3-in-loss`.

    Raises:
        ValueError: no such name.
    """
    return PENALTIES[name] if name in PENALTIES else divergence_named(name)


def slope_at_reference(penalty: Penalty) -> float:
    """f′(1), the weight of ∇log π in the penalty's gradient where π = ref = μ.

    Its expected gradient is 0 over samples of π. Over samples of another policy that are not weighed by w = π/μ it is
    not: then −β·f′(1) is a constant beside every advantage.
    """
    one = torch.ones(1, dtype=torch.float64)
    return float(penalty.slope(one, one, torch.zeros_like(one)))


def is_forward_kl(penalty: Penalty) -> bool:
    """Whether this is forward KL, or a multiple of it: the one divergence whose slope at ref = μ does not read w.

    w·f′(w) is constant if f′(w) = c/w; then f = c·log w, which is convex for c ≤ 0.
    """
    w = torch.tensor([0.1, 0.5, 1.0, 2.0, 10.0], dtype=torch.float64)
    slopes = penalty.slope(w, torch.ones_like(w), w.log())
    return bool(slopes[0] < 0) and bool(torch.allclose(slopes, slopes[0].expand_as(slopes)))
