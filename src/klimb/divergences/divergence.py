"""The f-divergence of two policies, as a pair (f, f′) and the two products a loss is made of.

Notation: w = π/μ, v = ref/μ, r = π/ref = w/v, x = log r. For convex f with f(1) = 0,

    D_f(π, ref) = E_ref[f(r)] = E_μ[v·f(w/v)]
    ∇D_f        = E_μ[w·f′(r)·∇log π]

v·f(w/v) is the *perspective* of f and w·f′(r) its *slope*. Both are computed from (w, v, x): as products of f(r) they
would overflow in float32 long before they are large themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


Product = Callable[[Tensor, Tensor, Tensor], Tensor]


LOG_R_BOUND = 40.0
"""exp(x) is taken of x bounded to ±this: exp(40)² still fits into float32."""


_PROBES = (0.05, 0.3, 0.9, 1.0, 1.1, 3.0, 20.0)


_STEP = 1e-5


_TOLERANCE = 1e-5


_DERIVED = cast(Product, None)


def bound(log_ratio: Tensor, limit: float = LOG_R_BOUND) -> Tensor:
    """Return a log-ratio with its value bounded to ±limit and its gradient kept.

    exp(bound(log w)) then has the gradient exp(bound(log w))·∇log w on both sides of the bound: a large weight is
    capped, its sample isn't silenced.
    """
    outside = (log_ratio.clamp(-limit, limit) - log_ratio).detach()
    return log_ratio + outside


@dataclass(frozen=True, eq=False)
class Divergence:
    """A divergence D_f(π, ref) = E_ref[f(π/ref)], usable as the regulariser of an `Objective`.

    Attributes:
        name: shown in logs and errors.
        f: convex, f(1) = 0, elementwise on tensors of r = π/ref > 0, differentiable by autograd.
        df: its derivative f′, elementwise.
        perspective: (w, v, x) ↦ v·f(w/v). Derived as v·f(exp(x)) when not given.
        slope: (w, v, x) ↦ w·f′(r), the weight of ∇log π in ∇D_f. Derived as w·f′(exp(x)) when not given.

    Raises:
        ValueError: f(1) ≠ 0, f is not convex, df is not the derivative of f, or a given perspective or slope
            disagrees with them. Checked at a few ratios between 0.05 and 20.

    Example:
        >>> total_variation = Divergence("tv", f=lambda r: (r - 1).abs() / 2, df=lambda r: (r - 1).sign() / 2)
    """

    name: str
    f: Function
    df: Function
    perspective: Product = _DERIVED
    slope: Product = _DERIVED

    def __post_init__(self) -> None:
        derived_perspective, derived_slope = _derive_perspective(self.f), _derive_slope(self.df)
        _check_convex_function(self.name, self.f, self.df)
        for attribute, derived in (("perspective", derived_perspective), ("slope", derived_slope)):
            given: Product | None = getattr(self, attribute)
            if given is None:
                object.__setattr__(self, attribute, derived)
            else:
                _check_product(self.name, attribute, given, derived)


def _derive_perspective(f: Function) -> Product:
    def perspective(w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        del w
        return v * f(bound(x).exp())

    return perspective


def _derive_slope(df: Function) -> Product:
    def slope(w: Tensor, v: Tensor, x: Tensor) -> Tensor:
        del v
        return w * df(bound(x).exp())

    return slope


def _check_convex_function(name: str, f: Function, df: Function) -> None:
    r = torch.tensor(_PROBES, dtype=torch.float64)
    at_one = float(f(torch.ones((), dtype=torch.float64)))
    if not abs(at_one) < _TOLERANCE:
        raise ValueError(f"divergence {name!r}: f(1) must be 0, got {at_one:g}; subtract the constant")
    derivative = df(r)
    numeric = (f(r * (1 + _STEP)) - f(r * (1 - _STEP))) / (2 * _STEP * r)
    wrong = (derivative - numeric).abs() > 1e-3 * (1 + numeric.abs())
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"divergence {name!r}: df must be the derivative of f, but at r = {_PROBES[at]} df gives "
            f"{float(derivative[at]):g} and f changes by {float(numeric[at]):g} per unit of r"
        )
    if bool((derivative.diff() < -_TOLERANCE).any()):
        raise ValueError(f"divergence {name!r}: f must be convex, but df falls between r = 0.05 and r = 20")


def _check_product(name: str, attribute: str, given: Product, derived: Product) -> None:
    w = torch.tensor(_PROBES, dtype=torch.float64)
    v = w.flip(0).roll(1) * 0.7
    x = w.log() - v.log()
    expected, actual = derived(w, v, x), given(w, v, x)
    wrong = (actual - expected).abs() > 1e-6 * (1 + expected.abs())
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise ValueError(
            f"divergence {name!r}: its {attribute} disagrees with f and df: at w = {float(w[at]):g}, "
            f"v = {float(v[at]):g} it gives {float(actual[at]):g}, expected {float(expected[at]):g}"
        )
