"""What is done with weights far from 1. Each clip is a small rule from (w, sign of the advantage) to `Clipped`.

Written as data so that the two estimators share every rule: the weight to use, whether the gradient flows, and how much
of the divergence's slope is kept. A rule that looks at probabilities and not at their ratio also reads log π.

The rules use the methods of the tensors they get, so that a clip's settings are read without torch.
"""

import difflib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le, Lt

from klimb.declarations import Fraction, OrWord, configurable, require

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    Values = Float[Tensor, "batch units"]
    Flags = Bool[Tensor, "batch units"]
    LogWeights = Float[Tensor, " units"]
else:
    Values = Flags = LogWeights = Any


Width = Annotated[float, Ge(0), Le(1_000)]


Largest = Annotated[float, Gt(1), Le(1_000_000)]


Ceiling = Annotated[float, Gt(1), Le(1_000_000), OrWord("none", math.inf)]


@dataclass(frozen=True)
class Clipped:
    """The outcome of a clip for every unit.

    Attributes:
        w: the weight to use in place of w = π/μ.
        keep: True where the gradient flows.
        slope_share: factor on the divergence's slope in the REINFORCE weight.
        low, high, ceiling: True where the weight was below the lower bound, above the upper one, or above the
            ceiling of a bad response: the branches of which metrics count the fractions.
    """

    w: Values
    keep: Flags
    slope_share: Values
    low: Flags
    high: Flags
    ceiling: Flags


@runtime_checkable
class Clip(Protocol):
    """A rule for weights far from 1. `is_good` is True where the advantage is not negative.

    One with `is_trust_region = False` bounds weights whoever drew the sample; any other is a trust region about the
    policy before the batch, and means nothing about a distribution that the policy never was.
    """

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Return the weights to use, and where the gradient flows. `log_pi` is that of the units, without gradient."""
        ...


@runtime_checkable
class MinibatchClip(Protocol):
    """A clip whose bounds come from a whole minibatch: it must be prepared before it is called."""

    def prepare(self, log_w: LogWeights) -> Clip:
        """Return the clip for a minibatch whose units have these log-weights."""
        ...


@configurable
@dataclass(frozen=True)
class NoClip:
    """Every weight as it is: the gradient is exact, and its variance is that of the weights."""

    kind: Literal["none"] = field(default="none", kw_only=True, repr=False)
    """No clip."""

    is_trust_region: ClassVar[bool] = False

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Everything kept."""
        never = is_good.new_zeros(is_good.shape)
        return Clipped(w, ~never, w.new_ones(w.shape), never, never, never)


@configurable
@dataclass(frozen=True)
class DualClip:
    """PPO's dual clip, and with the REINFORCE estimator the RPG-style clip.

    A good unit stops learning at w ≥ 1 + high, a bad one at w ≤ 1 − low and, lest one sample dominates, at w ≥ ceiling.
    `ceiling = inf` is PPO's single clip.

    Source: arXiv 2505.17508, algorithms 1 and 2; arXiv 1912.09729 (dual clip).
    """

    kind: Literal["dual"] = field(default="dual", kw_only=True, repr=False)
    """Dual clip."""
    low: Fraction = 0.2
    """A bad unit stops learning at w <= 1 - low."""
    high: Width = 0.28
    """A good unit stops learning at w >= 1 + high."""
    ceiling: Ceiling = 3.0
    """A bad unit stops learning at w >= ceiling, or `none`."""

    def __post_init__(self) -> None:
        require(0 <= self.low <= 1, "clip low", self.low, "in [0, 1]")
        require(self.high >= 0, "clip high", self.high, ">= 0")
        require(self.ceiling > 1, "clip ceiling", self.ceiling, "> 1 (inf switches it off)")
        if self.low == self.high == 0:
            raise ValueError("clip low and clip high are both 0: no unit would learn even at w = 1; raise one of them")

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Return the weight replaced by the bound it passed, without gradient there."""
        high = is_good & (w >= 1 + self.high)
        low = ~is_good & (w <= 1 - self.low)
        ceiling = ~is_good & (w >= self.ceiling)
        bounded = w.masked_fill(low, 1 - self.low).masked_fill(high, 1 + self.high)
        if math.isfinite(self.ceiling):
            bounded = bounded.masked_fill(ceiling, self.ceiling)
        return Clipped(bounded, ~(high | low | ceiling), w.new_ones(w.shape), low, high, ceiling)


@configurable
@dataclass(frozen=True)
class Truncate:
    """The weight is bounded to [1 − low, 1 + high] and the gradient is kept.

    The whole regularised advantage is weighed by the bounded weight: at `low = 1` it is truncated importance sampling.

    Source: arXiv 2505.17508, equation 4.1; arXiv 2506.13585 (CISPO).
    """

    kind: Literal["truncate"] = field(default="truncate", kw_only=True, repr=False)
    """Truncation."""
    low: Fraction = 0.2
    """Smallest weight is 1 - low."""
    high: Width = 0.28
    """Largest weight is 1 + high."""

    is_trust_region: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 <= self.low <= 1, "clip low", self.low, "in [0, 1]")
        require(self.high >= 0, "clip high", self.high, ">= 0")

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Return the weight bounded on both sides; nothing loses its gradient."""
        bounded = w.clamp(1 - self.low, 1 + self.high)
        never = is_good.new_zeros(is_good.shape)
        return Clipped(bounded, ~never, bounded / w, w < 1 - self.low, w > 1 + self.high, never)


@configurable
@dataclass(frozen=True)
class Mask:
    """Units whose weight leaves [low, high] are left out; the others are as they are.

    Source: arXiv 2510.18855 (IcePop, band 0.5 to 5); masked importance sampling in verl and prime-rl.
    """

    kind: Literal["mask"] = field(default="mask", kw_only=True, repr=False)
    """Masking."""
    low: Annotated[float, Ge(0), Lt(1)] = 0.5
    """Smallest weight that counts."""
    high: Largest = 2.0
    """Largest weight that counts."""

    is_trust_region: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(0 <= self.low < 1, "mask low", self.low, "in [0, 1)")
        require(self.high > 1, "mask high", self.high, "> 1")

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Weight 0 and no gradient outside the band."""
        low, high = w < self.low, w > self.high
        keep = ~(low | high)
        inside = keep.to(w.dtype)
        return Clipped(w * inside, keep, inside, low, high, is_good.new_zeros(is_good.shape))


@configurable
@dataclass(frozen=True)
class Taper:
    """A good unit has weight 1 whatever w is; a bad one min(w, 1). Every unit keeps its gradient.

    What is good is learned from at full strength however unlikely it has become, as in supervised learning; what is
    bad is pushed down only as far as the policy still does it. No weight exceeds 1, so the variance stays bounded.

    Source: arXiv 2503.14286 (TOPR), the ratio truncated to [1, 1] for the good and to [0, 1] for the bad.
    """

    kind: Literal["taper"] = field(default="taper", kw_only=True, repr=False)
    """Tapering."""

    is_trust_region: ClassVar[bool] = False

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Weight 1 or min(w, 1); nothing loses its gradient."""
        tapered = w.clamp(max=1).masked_fill(is_good, 1)
        never = is_good.new_zeros(is_good.shape)
        return Clipped(tapered, ~never, tapered / w, is_good & (w < 1), w > 1, never)


@configurable
@dataclass(frozen=True)
class TotalVariation:
    """Units whose probability has moved far from μ's, in the direction that the advantage still pushes, are left out.

    A good unit stops learning at π − μ > high, a bad one at π − μ < −low; the others have the weight min(w, ceiling).
    A ratio forbids a rare token every move and a likely one none; a difference of probabilities treats them alike.

    Source: arXiv 2602.04879 (DPPO, binary total variation); the ceiling is that of verl's `dppo_tv`.
    """

    kind: Literal["total-variation"] = field(default="total-variation", kw_only=True, repr=False)
    """Difference of probabilities."""
    low: Fraction = 0.2
    """A bad unit stops learning at pi - mu < -low."""
    high: Fraction = 0.2
    """A good unit stops learning at pi - mu > high."""
    ceiling: Ceiling = 20.0
    """Largest weight, or `none`."""

    def __post_init__(self) -> None:
        require(0 <= self.low <= 1, "total variation low", self.low, "in [0, 1]")
        require(0 <= self.high <= 1, "total variation high", self.high, "in [0, 1]")
        require(self.ceiling > 1, "clip ceiling", self.ceiling, "> 1 (inf switches it off)")

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Weight 0 and no gradient where the probability has moved too far, min(w, ceiling) elsewhere.

        Raises:
            ValueError: without log_pi.
        """
        if log_pi is None:
            raise ValueError("the total-variation clip compares probabilities; call it with log_pi")
        pi = log_pi.exp()
        moved = pi - pi / w
        high = is_good & (moved > self.high)
        low = ~is_good & (moved < -self.low)
        bounded = w.clamp(max=self.ceiling) * (~(high | low)).to(w.dtype)
        return Clipped(bounded, ~(high | low), bounded / w, low, high, w > self.ceiling)


@configurable
@dataclass(frozen=True)
class SecondMoment:
    """The units of the largest |log w| are left out until the mean of (log w)² over the others is at most `threshold`.

    Unlike a mean of log w, which estimates a divergence, this mean cannot be kept low by large moves that cancel.

    Source: arXiv 2510.01161 (M2PO).
    """

    kind: Literal["second-moment"] = field(default="second-moment", kw_only=True, repr=False)
    """Second moment."""
    threshold: Annotated[float, Gt(0), Le(1_000)] = 0.04
    """Largest mean of log(w)^2 over the units of a minibatch that are kept."""

    def __post_init__(self) -> None:
        require(self.threshold > 0, "second moment threshold", self.threshold, "> 0")

    def prepare(self, log_w: LogWeights) -> "LogBand":
        """Return the band that keeps as many units as the threshold allows; units that are not finite are in no band.

        Of equal |log w| all stay or all go. If even the smallest is too large, none stays. The edge lies midway
        between the last that stays and the first that goes, so that rounding moves no unit across it.
        """
        sizes = log_w.detach()[log_w.isfinite()].abs().double().sort().values
        counts = sizes.new_ones(len(sizes)).cumsum(0)
        num_kept = int((sizes.square().cumsum(0) / counts <= self.threshold).sum())
        if num_kept == len(sizes):
            return LogBand(width=math.inf)
        first_out = sizes[num_kept]
        below = sizes[sizes < first_out]
        return LogBand(width=float((first_out + (below[-1] if len(below) else 0)) / 2))

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Nothing: the bound is of a whole minibatch.

        Raises:
            ValueError: always.
        """
        raise ValueError("the second-moment clip is of a whole minibatch: call prepare(…) on the objective first")


@dataclass(frozen=True)
class LogBand:
    """Units with |log w| ≥ `width` are left out: a second-moment clip that knows its minibatch."""

    width: float

    def __call__(self, w: Values, is_good: Flags, log_pi: Values | None = None) -> Clipped:
        """Weight 0 and no gradient outside of the band."""
        log_w = w.log()
        keep = log_w.abs() < self.width
        inside = keep.to(w.dtype)
        return Clipped(
            w * inside, keep, inside, ~keep & (log_w < 0), ~keep & (log_w >= 0), is_good.new_zeros(is_good.shape)
        )


CLIPS: dict[str, Clip] = {
    clip.kind: clip for clip in (NoClip(), DualClip(), Truncate(), Mask(), Taper(), TotalVariation(), SecondMoment())
}
"""Every clip by its kind, with its default settings. A run file's `[objective.clip]` takes each of them."""


def clip_named(name: str) -> Clip:
    """Return the clip of this name with its default settings.

    Raises:
        ValueError: no such clip.
    """
    if name in CLIPS:
        return CLIPS[name]
    nearest = difflib.get_close_matches(name, CLIPS, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"unknown clip {name!r}{hint} There are: {', '.join(CLIPS)}, or a clip object with its settings")
