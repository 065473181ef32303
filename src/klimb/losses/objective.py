"""Log-probabilities in, loss and metrics out. J(θ) = E_π[R] − β·D(π, ref), from samples of any μ."""

import difflib
import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.losses.clips import Clip, ClipName, DualClip, clip_named
from klimb.losses.errors import require
from klimb.losses.metrics import ratio_metrics, unit_metrics
from klimb.losses.penalties import Penalty, penalty_named
from klimb.losses.reduction import REDUCTIONS, Reduce, normalizer, reduce_terms
from klimb.losses.surrogates import ESTIMATORS, Estimator, differentiable, reinforce
from klimb.losses.units import LEVELS, Level, Units, spread, to_units, unit_advantages, unit_mask

WEIGHT_BOUND = 20.0
"""Log-weights of units are bounded to ±this before exp: exp(20) ≈ 5e8. Hits are counted in `num_bound_hits`."""


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns.

    Attributes:
        loss: scalar, differentiable.
        terms: the loss before reduction; a row's sum is that sequence's loss; 0 where the mask is False.
        metrics: named numbers, explained in docs/metrics.md. Empty when no token counts.
    """

    loss: Float[Tensor, ""]
    terms: Float[Tensor, "batch time"]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The KL-regularised policy-gradient objective, as a function of log-probabilities.

    With w = π/μ, v = ref/μ and x = log π/ref of each unit, and no clip, the gradient of the loss is exactly

        −E_μ[(w·A − β·slope(w, v, x))·∇log π] = −∇(E_π[A] − β·D(π, ref))

    Attributes:
        divergence: a name (`fkl`, `rkl`, `ufkl`, `urkl`, …, `0.5*fkl + 0.5*rkl`), a `Divergence`, or a `Penalty`.
        beta: weight of the divergence, in units of the advantage per nat; 0 needs no reference.
        estimator: `reinforce` (weight without gradient times log π) or `differentiable`.
        level: what a weight is of: `token`, `prefix` (for rewards per token: one advantage a response would count
            once a prefix), `sequence` (exact for a reward of the sequence), or `sequence-mean` (GSPO's geometric mean
            over tokens).
        clip: `none`, `dual`, `truncate`, `mask`, or a clip object with its settings.
        reduce: `token-mean`, `sequence-mean-token-mean`, `sequence-mean-token-sum` (the expectation over sequences),
            or a fixed length L (sum over sequences × L).
        weight_bound: log-weights are bounded to ± this before exp, keeping their gradient.

    Raises:
        ValueError: a setting is unknown or out of its range.

    Source: arXiv 2505.17508; docs/exactness.md says where klimb departs from its Algorithm 1.
    """

    divergence: str | Penalty = "urkl"
    beta: float = 1e-4
    estimator: Estimator = "reinforce"
    level: Level = "token"
    clip: ClipName | Clip = field(default_factory=DualClip)
    reduce: Reduce = "token-mean"
    weight_bound: float = WEIGHT_BOUND

    def __post_init__(self) -> None:
        require(math.isfinite(self.beta) and self.beta >= 0, "beta", self.beta, "finite and >= 0")
        require(self.weight_bound > 0, "weight_bound", self.weight_bound, "> 0")
        _require_known("estimator", self.estimator, ESTIMATORS)
        _require_known("level", self.level, LEVELS)
        if isinstance(self.reduce, int):
            require(self.reduce > 0, "reduce (a fixed length)", self.reduce, "> 0")
        else:
            _require_known("reduce", self.reduce, REDUCTIONS)
        if isinstance(self.divergence, str):
            object.__setattr__(self, "divergence", penalty_named(self.divergence))
        if isinstance(self.clip, str):
            object.__setattr__(self, "clip", clip_named(self.clip))

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """The denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return normalizer(mask, reduce=self.reduce)

    def __call__(
        self,
        log_pi: Tensor,
        log_mu: Tensor,
        log_ref: Tensor | None,
        advantages: Tensor,
        mask: Tensor,
        *,
        entropy: Tensor | None = None,
        normalizer: float | None = None,
    ) -> ObjectiveOutput:
        """Loss, terms and metrics. Every tensor is [batch, time]; advantages may be [batch].

        Args:
            log_pi: log-probability in nats of token t under the policy; the only argument that gets a gradient.
            log_mu: the same under the behaviour policy the token was really drawn from.
            log_ref: the same under the reference (log-mass, if it is unnormalised). `log_mu` for ref = μ; None only
                when beta is 0.
            advantages: [batch], one per sequence, or [batch, time].
            mask: True where a token counts. Elsewhere anything may stand, NaN included.
            entropy: of the policy at each position in nats; logged as its mean.
            normalizer: of the whole batch, when this is a micro-batch of it: the losses then add up.

        Raises:
            ValueError: shapes don't match, the mask isn't boolean, log_ref is missing although beta > 0, or a counted
                log_mu, log_ref or advantage isn't finite. (A non-finite log_pi gives a non-finite loss.)
        """
        _check(log_pi, log_mu, log_ref, advantages, mask, beta=self.beta)
        units, log_w, log_v = self._units(log_pi, log_mu, log_ref, advantages, mask)
        surrogate = reinforce if self.estimator == "reinforce" else differentiable
        assert not isinstance(self.divergence, str) and not isinstance(self.clip, str)
        losses, clipped = surrogate(
            units, self.divergence, beta=self.beta, clip=self.clip, weight_bound=self.weight_bound
        )
        terms = spread(torch.where(units.mask, losses, 0.0), mask, level=self.level)
        total = self.normalizer(mask) if normalizer is None else normalizer
        loss = reduce_terms(terms, mask, reduce=self.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = ratio_metrics(log_w, log_v, mask, weight_bound=self.weight_bound)
        metrics |= unit_metrics(units, clipped, weight_bound=self.weight_bound)
        if entropy is not None:
            metrics["entropy"] = entropy.detach()[mask].mean()
        values = torch.stack([value.double() for value in metrics.values()]).cpu()  # one transfer, not one a metric
        return ObjectiveOutput(loss, terms, {name: float(value) for name, value in zip(metrics, values, strict=True)})

    def _units(
        self, log_pi: Tensor, log_mu: Tensor, log_ref: Tensor | None, advantages: Tensor, mask: Tensor
    ) -> tuple[Units, Tensor, Tensor | None]:
        """Masked entries cleared before any arithmetic, float32 or wider, summed up to units.

        Also the per-token log_w and log_v (None without a reference) for the metrics.
        """
        log_mu = log_mu.detach()
        advantages = advantages.detach()
        inputs = [log_pi, log_mu, advantages] + ([] if log_ref is None else [log_ref])
        dtype = torch.float32
        for tensor in inputs:
            dtype = torch.promote_types(dtype, tensor.dtype)

        def clear(values: Tensor) -> Tensor:
            return torch.where(mask, values.to(dtype), 0.0)

        log_pi = clear(log_pi)
        log_w = log_pi - clear(log_mu)
        log_v = None if log_ref is None else clear(log_ref.detach()) - clear(log_mu)
        per_token = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(mask)
        units = Units(
            log_pi=to_units(log_pi, mask, level=self.level),
            log_w=to_units(log_w, mask, level=self.level),
            log_v=to_units(torch.zeros_like(log_pi) if log_v is None else log_v, mask, level=self.level),
            advantages=unit_advantages(clear(per_token), mask, level=self.level),
            mask=unit_mask(mask, level=self.level),
        )
        return units, log_w.detach(), log_v


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        nearest = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown {name} {value!r}{hint} There are: {', '.join(known)}")


def _check(
    log_pi: Tensor, log_mu: Tensor, log_ref: Tensor | None, advantages: Tensor, mask: Tensor, *, beta: float
) -> None:
    shape = tuple(log_pi.shape)
    if log_pi.ndim != 2:
        raise ValueError(f"log_pi must have shape [batch, time], got {list(shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True counts), got {mask.dtype}; convert with mask.bool()")
    given = {"log_mu": log_mu, "log_ref": log_ref, "mask": mask}
    for name, tensor in given.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape of log_pi, {list(shape)}, got {list(tensor.shape)}")
    if tuple(advantages.shape) not in (shape, shape[:1]):
        raise ValueError(f"advantages must be [batch] or [batch, time] of {list(shape)}, got {list(advantages.shape)}")
    if log_ref is None and beta > 0:
        raise ValueError(
            f"log_ref is None but beta = {beta}: pass the reference's log-probabilities, or log_mu for ref = μ"
        )
    per_token = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(mask)
    for name, tensor in {"log_mu": log_mu, "log_ref": log_ref, "advantages": per_token}.items():
        if tensor is None:
            continue
        bad = mask & ~tensor.isfinite()
        if bool(bad.any()):
            row, time = (int(index) for index in bad.nonzero()[0])
            raise ValueError(
                f"{name} is {float(tensor[row, time])} at row {row}, position {time}, which counts (and at "
                f"{int(bad.sum())} positions in all); drop such samples or mask the tokens"
            )
