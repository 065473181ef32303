"""Penalties that stand where a divergence does, but whose gradient is not a divergence's.

Kept for the baselines that use them, under a name that says what they are.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


def penalty_named(name: str) -> Divergence | K3InLoss:
    """The divergence of this name, or `k3-in-loss`.

    Raises:
        ValueError: no such name.
    """
    return K3InLoss() if name == "k3-in-loss" else divergence_named(name)
