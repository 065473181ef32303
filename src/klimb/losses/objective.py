"""Log-probabilities in, loss and metrics out. J(θ) = E_π[R] − β·D(π, ref), from samples of any μ.

The two estimators of one gradient.

    differentiable   L = −w̄·A + β·perspective(w, v, x)            differentiated as it stands
    reinforce        L = −sg(w̄·A − β·slope(w, v, x))·log π         sg = no gradient

w̄ is the clipped weight. Without a clip both have the gradient −(w·A − β·slope)·∇log π, sample by sample.

Penalties that stand where a divergence does, but whose gradient is not a divergence's.

Kept for the baselines that use them, under a name that says what they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.declarations import require
from klimb.divergences import Divergence, bound, divergence_named
from klimb.divergences.names import SlopeAtReference
from klimb.errors import ConfigError
from klimb.losses.clips import Clip, Clipped, MinibatchClip
from klimb.losses.inputs import (
    WEIGHT_BOUND,
    Inputs,
    ObjectiveOutput,
    Units,
    as_numbers,
    entropy_terms,
    normalizer,
    reduce_terms,
    spread,
    takes_tensors,
    to_units,
    unit_advantages,
    unit_mask,
    working_dtype,
)
from klimb.losses.measures import (
    bound_metrics,
    clip_metrics,
    data_metrics,
    entropy_metrics,
    ratio_metrics,
    weight_metrics,
)
from klimb.losses.names import require_reduction
from klimb.losses.settings import ObjectiveSettings, Penalty


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
        """Return the log-ratio x."""
        del w, v
        return x


PENALTIES: Mapping[str, K2InLoss | K3InLoss] = {"k2-in-loss": K2InLoss(), "k3-in-loss": K3InLoss()}


def penalty_named(name: str) -> Divergence | K2InLoss | K3InLoss:
    """Return the divergence of this name, `k2-in-loss` or `k3-in-loss`.

    Raises:
        ValueError: no such name.
    """
    return PENALTIES[name] if name in PENALTIES else divergence_named(name)


def slope_at_reference(penalty: Penalty) -> SlopeAtReference:
    """Return f′(1), the weight of ∇log π in the penalty's gradient where π = ref = μ, and whether it is forward KL's.

    Its expected gradient is 0 over samples of π. Over samples of another policy that are not weighed by w = π/μ it is
    not: then −β·f′(1) is a constant beside every advantage. Forward KL (or a multiple of it) is the one divergence
    whose slope at ref = μ does not read w: w·f′(w) is constant if f′(w) = c/w; then f = c·log w, convex for c ≤ 0.
    """
    w = torch.tensor([0.1, 0.5, 1.0, 2.0, 10.0], dtype=torch.float64)
    one = torch.ones_like(w)
    slopes = penalty.slope(w, one, w.log())
    return SlopeAtReference(
        constant=float(penalty.slope(one, one, torch.zeros_like(one))[0]),
        is_forward_kl=bool(slopes[0] < 0) and bool(torch.allclose(slopes, slopes[0].expand_as(slopes))),
    )


def _clipped(clip: Callable[..., object], w: Tensor, is_good: Tensor, log_pi: Tensor) -> Clipped:
    """Return what the clip says; what a function of the user's own returns is anybody's guess."""
    found = clip(w, is_good, log_pi.detach())
    if not isinstance(found, Clipped):
        raise ConfigError(f"the clip {clip!r} must return a klimb.losses.Clipped, got {type(found).__name__}")
    return found


@torch.no_grad()
def _mark_touched(clipped: Clipped, plain: Tensor, weight: Tensor) -> Clipped:
    """Return the outcome with a branch marked only where the clip changed the gradient.

    A unit whose term is 0 has nothing to clip, whatever its weight.

    Args:
        clipped: the outcome of the clip.
        plain: the factor of ∇log π without the clip.
        weight: that with it, where the gradient flows.
    """
    is_touched = torch.where(clipped.keep, weight, 0.0) != plain
    return replace(
        clipped,
        low=clipped.low & is_touched,
        high=clipped.high & is_touched,
        ceiling=clipped.ceiling & is_touched,
    )


def differentiable(
    units: Units, penalty: Penalty, *, beta: float, clip: Clip, weight_bound: float
) -> tuple[Float[Tensor, "batch units"], Clipped]:
    """−w̄·A + β·perspective. The clip acts on w·A alone, by the sign of A; the divergence is never clipped.

    What is returned of the clip marks the units whose gradient it changed.

    Source: arXiv 2505.17508, sections 3 and E; its Algorithm 1 clips the regularised advantage and differentiates it
    too, so that the divergence enters the gradient a second time (docs/exactness.md).
    """
    w = bound(units.log_w, weight_bound).exp()
    detached = w.detach()
    clipped = _clipped(clip, detached, units.advantages >= 0, units.log_pi)
    log_w = units.log_w
    live = torch.where(clipped.keep, log_w, log_w.detach())
    bounded = clipped.w * (1 + live - live.detach())
    losses = -bounded * units.advantages
    touched = _mark_touched(clipped, detached * units.advantages, clipped.w * units.advantages)
    if beta == 0:
        return losses, touched
    v = bound(units.log_v, weight_bound).exp()
    return losses + beta * penalty.perspective(w, v, log_w - units.log_v), touched


def reinforce(
    units: Units, penalty: Penalty, *, beta: float, clip: Clip, weight_bound: float
) -> tuple[Float[Tensor, "batch units"], Clipped]:
    """−(w̄·A − β·slope)·log π with a weight that carries no gradient, clipped by the sign of that weight.

    What is returned of the clip marks the units whose gradient it changed.

    With `DualClip` this is Algorithm 2 (RPG-style clip), its values in the clipped branches included.

    Source: arXiv 2505.17508, algorithm 2 and section F.
    """
    log_w = units.log_w.detach()
    w = bound(log_w, weight_bound).exp()
    regularisation = torch.zeros_like(w)
    if beta != 0:
        v = bound(units.log_v, weight_bound).exp()
        regularisation = -beta * penalty.slope(w, v, log_w - units.log_v)
    plain = w * units.advantages + regularisation
    clipped = _clipped(clip, w, plain >= 0, units.log_pi)
    weight = clipped.w * units.advantages + clipped.slope_share * regularisation
    live = torch.where(clipped.keep, units.log_pi, units.log_pi.detach())
    return -weight * live, _mark_touched(clipped, plain, weight)


@dataclass(frozen=True, kw_only=True)
class Objective(ObjectiveSettings):
    """The KL-regularised policy-gradient objective, as a function of log-probabilities.

    With w = π/μ, v = ref/μ and x = log π/ref of each unit, and no clip, the gradient of the loss is exactly

        −E_μ[(w·A − β·slope(w, v, x))·∇log π] = −∇(E_π[A] − β·D(π, ref))

    Its settings are those of `ObjectiveSettings`.

    Attributes:
        divergence: a name (`fkl`, `rkl`, `ufkl`, `urkl`, …, `0.5*fkl + 0.5*rkl`), a `Divergence`, or a `Penalty`.
        level: what a weight is of: `token`, `prefix` (for rewards per token: one advantage a response would count
            once a prefix), `sequence` (exact for a reward of the sequence), or `sequence-mean` (GSPO's geometric mean
            over tokens).
        clip: a name in `CLIPS`, or a clip object with its settings.
        reduce: `token-mean`, `sequence-mean-token-mean`, `sequence-mean-token-sum` (the expectation over sequences),
            or a fixed length L (sum over sequences × L).
        ratio: `recorded` forms w from log_mu. `none` forms no ratio to μ: w = 1 for every unit and log_mu is not
            read, log μ standing at sg(log π). Then v = ref/π, and without a log_ref ref = μ: v = 1 and x = 0, so that
            the divergence is but a constant −β·f′(1) beside each advantage; forward KL alone means that.
        entropy_bonus: weight c of −c·H in the term of each token, H the entropy in nats of the policy there. It has no
            weight w, no clip and no baseline; docs/exactness.md says of what it is the gradient.
        weight_bound: log-weights are bounded to ± this before exp, keeping their gradient.

    Raises:
        ValueError: a setting is unknown or out of its range.

    Source: arXiv 2505.17508; docs/exactness.md says where klimb departs from its Algorithm 1.
    """

    weight_bound: float = WEIGHT_BOUND

    def __post_init__(self) -> None:
        ObjectiveSettings.__post_init__(self)
        require(self.weight_bound > 0, "weight_bound", self.weight_bound, "> 0")
        require_reduction(self.reduce)
        if isinstance(self.divergence, str):
            object.__setattr__(self, "divergence", penalty_named(self.divergence))
        require(isinstance(self.divergence, Penalty), "divergence", self.divergence, "a divergence, or the name of one")
        require(callable(self.clip), "clip", self.clip, "a clip, or the name of one")

    @property
    def needs_log_prox(self) -> bool:
        """False: log_prox is not read."""
        return False

    @torch.no_grad()
    def prepare(self, inputs: Inputs) -> "tuple[Objective, Inputs]":
        """Return the same with a clip that knows its minibatch, if the clip needs to; the inputs as they are.

        Raises:
            ValueError: as the call.
        """
        if not isinstance(self.clip, MinibatchClip):
            return self, inputs
        units, _, _ = self._units(inputs, self._check_log_mu(inputs))
        return replace(self, clip=self.clip.prepare(units.log_w[units.mask])), inputs

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return normalizer(mask, reduce=self.reduce)

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics; takes `Inputs`, or its fields: log_pi, log_mu, log_ref, advantages, mask.

        The entropy is read for its bonus. log_mu is not read, and may be None, with `ratio = "none"`. log_ref may be
        None only when beta is 0 or, meaning ref = μ, with `ratio = "none"`. log_prox is not read.

        Raises:
            ValueError: shapes don't match, the mask isn't boolean, log_ref is missing although beta > 0, or a counted
                log_mu, log_ref or advantage isn't finite. (A non-finite log_pi gives a non-finite loss.)
        """
        mask = inputs.mask
        units, log_w, log_v = self._units(inputs, self._check_log_mu(inputs))
        losses, clipped = self._surrogate(units)
        terms = spread(torch.where(units.mask, losses, 0.0), mask, level=self.level)
        if self.needs_entropy:
            terms = terms + entropy_terms(inputs, self.entropy_bonus)
        total = self.normalizer(mask) if inputs.normalizer is None else inputs.normalizer
        loss = reduce_terms(terms, mask, reduce=self.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        if self.ratio == "recorded":
            metrics = ratio_metrics(log_w, log_v, mask, weight_bound=self.weight_bound)
            metrics |= self._unit_metrics(units, clipped)
        else:
            metrics = data_metrics(inputs)
            metrics |= {} if inputs.log_ref is None else bound_metrics(units, weight_bound=self.weight_bound)
        return ObjectiveOutput(loss, terms, as_numbers(metrics | entropy_metrics(inputs)))

    @torch.no_grad()
    def measure_clip(self, inputs: Inputs, teaches: Bool[Tensor, "batch time"]) -> dict[str, float]:
        """Return the `clip_*` metrics where whoever weighs the terms lets these tokens alone teach.

        What is left out has no gradient that a clip could change; it still counts among the units.
        """
        units, _, _ = self._units(inputs, self._check_log_mu(inputs))
        _, clipped = self._surrogate(units)
        return as_numbers(clip_metrics(units, clipped, teaches=unit_mask(teaches, level=self.level)))

    def _surrogate(self, units: Units) -> tuple[Float[Tensor, "batch units"], Clipped]:
        surrogate = reinforce if self.estimator == "reinforce" else differentiable
        assert not isinstance(self.divergence, str) and not isinstance(self.clip, str)
        return surrogate(units, self.divergence, beta=self.beta, clip=self.clip, weight_bound=self.weight_bound)

    def _check_log_mu(self, inputs: Inputs) -> Float[Tensor, "batch time"]:
        """Return log_mu as the ratio wants it, once everything given has been checked."""
        if self.ratio == "none":
            inputs.check("log_ref")
            return inputs.log_pi.detach()
        if inputs.log_mu is None:
            raise ValueError("log_mu is None, and ratio = 'recorded' needs it; without one use ratio = 'none'")
        inputs.check("log_mu", "log_ref")
        if inputs.log_ref is None and self.beta > 0:
            raise ValueError(
                f"log_ref is None but beta = {self.beta}: pass the reference's log-probabilities, or log_mu for ref = μ"
            )
        return inputs.log_mu.detach()

    def _unit_metrics(self, units: Units, clipped: Clipped) -> dict[str, Tensor]:
        """Weights of the units, where the clip changed the gradient, and how many log-ratios had to be bounded."""
        return (
            weight_metrics(units, weight_bound=self.weight_bound)
            | clip_metrics(units, clipped, teaches=units.mask)
            | bound_metrics(units, weight_bound=self.weight_bound)
        )

    def _units(
        self, inputs: Inputs, log_mu: Float[Tensor, "batch time"]
    ) -> tuple[Units, Float[Tensor, "batch time"], Float[Tensor, "batch time"] | None]:
        """Masked entries cleared before any arithmetic, float32 or wider, summed up to units.

        Also the per-token log_w and log_v (None without a reference) for the metrics.
        """
        mask, log_ref, advantages = inputs.mask, inputs.log_ref, inputs.token_advantages.detach()
        dtype = working_dtype(inputs.log_pi, log_mu, advantages, log_ref)

        def clear(values: Tensor) -> Tensor:
            return torch.where(mask, values.to(dtype), 0.0)

        log_pi = clear(inputs.log_pi)
        log_w = log_pi - clear(log_mu)
        log_v = None if log_ref is None else clear(log_ref.detach()) - clear(log_mu)
        units = Units(
            log_pi=to_units(log_pi, mask, level=self.level),
            log_w=to_units(log_w, mask, level=self.level),
            log_v=to_units(torch.zeros_like(log_pi) if log_v is None else log_v, mask, level=self.level),
            advantages=unit_advantages(clear(advantages), mask, level=self.level),
            mask=unit_mask(mask, level=self.level),
        )
        return units, log_w.detach(), log_v
