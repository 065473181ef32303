"""The squared-residual family: regress the log-ratio to an anchor onto the advantage that it has at the optimum.

The optimum of E_π[R] − β·KL(π‖anchor) is π* = anchor·exp(R/β)/Z, so there β·log(π*/anchor) = R − V* with
V* = β·log Z for every response. A loss that is 0 exactly there needs no importance weight, whatever drew the data.
"""

import math
from dataclasses import dataclass, replace
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.losses.inputs import (
    WEIGHT_BOUND,
    Fitted,
    ObjectiveOutput,
    Reduce,
    Units,
    as_numbers,
    check_tensors,
    normalizer,
    reduce_terms,
    require,
    require_known,
    require_reduction,
    spread,
    to_units,
    unit_mask,
    working_dtype,
)
from klimb.losses.measures import bound_metrics, data_metrics, ratio_metrics, weight_metrics
from klimb.losses.names import Anchor, SequenceLevel, Value

ANCHORS: tuple[str, ...] = get_args(Anchor)


VALUES: tuple[str, ...] = get_args(Value)


SEQUENCE_LEVELS: tuple[str, ...] = get_args(SequenceLevel)


@dataclass(frozen=True, kw_only=True)
class SquaredResidual:
    """½·(β·L − A)²/β for each sequence, L = Σ_t log(π/anchor).

    The division by β makes the gradient (β·L − A)·∇L: at π = anchor it is −A·∇log π, that of REINFORCE, so that a
    learning rate means the same for every β. The factor moves no minimum.

    Attributes:
        beta: weight of KL(π‖anchor) in the objective whose optimum is regressed onto, in units of reward per nat of
            L; > 0.
        anchor: `mu`, the policy that the data was drawn from, or `ref`. Only that one is read.
        value: where A = r − V comes from. `given`: it is passed as the advantage. `group-optimal`: the reward r is
            passed, and V is the mean of r − β·L over the group under the present policy, which minimises the loss;
            rows that are alone in their group take the mean over the minibatch. `batch-optimal`: that mean for all.
        level: `sequence`, or `sequence-mean`: L is divided by the number of tokens, and β is per nat per token.
        reduce: as in `Objective`; the default is the mean over sequences of the loss above.

    Raises:
        ValueError: a setting is unknown or out of its range.

    Source: arXiv 2405.19107, 2501.12599, 2505.20686, 2602.05933, 2602.19362.
    """

    beta: float
    anchor: Anchor = "mu"
    value: Value = "given"
    level: SequenceLevel = "sequence"
    reduce: Reduce = "sequence-mean-token-sum"

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.beta) and self.beta > 0, "beta", self.beta, "finite and > 0 (the loss divides by it)"
        )
        require_known("anchor", self.anchor, ANCHORS)
        require_known("value", self.value, VALUES)
        require_known("level of a squared residual", self.level, SEQUENCE_LEVELS)
        require_reduction(self.reduce)

    @property
    def needs_log_mu(self) -> bool:
        """Whether log_mu is read: where it is the anchor."""
        return self.anchor == "mu"

    @property
    def needs_log_ref(self) -> bool:
        """Whether log_ref is read: where it is the anchor."""
        return self.anchor == "ref"

    @property
    def needs_log_prox(self) -> bool:
        """False: log_prox is not read."""
        return False

    @property
    def fits_minibatch(self) -> bool:
        """Whether V is made from the whole minibatch."""
        return self.value != "given"

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return normalizer(mask, reduce=self.reduce)

    @torch.no_grad()
    def fitted(
        self,
        log_pi: Tensor,
        log_mu: Tensor | None,
        log_ref: Tensor | None,
        advantages: Float[Tensor, " batch"],
        mask: Bool[Tensor, "batch time"],
        groups: Int[Tensor, " batch"],
        *,
        log_prox: Tensor | None = None,
    ) -> Fitted:
        """Return a = r − V with the V that minimises the loss of this minibatch, and the loss that takes A as given.

        A minibatch of one response is fitted exactly: its residual is 0 and it teaches nothing.

        Args:
            log_pi: of the whole minibatch under the present policy.
            log_mu: the same under μ; read if it is the anchor.
            log_ref: the same under the reference; read if it is the anchor.
            advantages: the rewards r, or with `value = "given"` the advantages, which come back as they are.
            mask: True where a token counts; a row without one is in no mean.
            groups: responses to the same prompt share a number.
            log_prox: not read.

        Raises:
            ValueError: the anchor is missing or not finite.
        """
        del log_prox
        if self.value == "given":
            return Fitted(self, advantages)
        log_ratio = self._log_ratio(log_pi, log_mu, log_ref, advantages, mask)[:, 0]
        counted = mask.any(dim=1)
        # A row that the policy broke makes the loss not finite by itself; the others keep a value.
        averaged = counted & log_ratio.isfinite()
        targets = torch.where(averaged, advantages.to(log_ratio.dtype) - self.beta * log_ratio, 0.0)
        values = (targets.sum() / averaged.sum().clamp(min=1)).expand_as(targets)
        if self.value == "group-optimal":
            values = _group_means(targets, averaged, groups, alone=values)
        return Fitted(replace(self, value="given"), advantages - values.to(advantages.dtype))

    def __call__(
        self,
        log_pi: Tensor,
        log_mu: Tensor | None,
        log_ref: Tensor | None,
        advantages: Tensor,
        mask: Tensor,
        *,
        entropy: Tensor | None = None,
        normalizer: float | None = None,
        log_prox: Tensor | None = None,
    ) -> ObjectiveOutput:
        """Loss, terms and metrics, as `Objective` returns them; only the anchor's log-probabilities are read.

        Args:
            log_pi: [batch, time], log-probability in nats of token t under the policy; it alone gets a gradient.
            log_mu: the same under μ, or None if the anchor is ref.
            log_ref: the same under the reference, or None if the anchor is μ.
            advantages: [batch], A = r − V.
            mask: True where a token counts. Elsewhere anything may stand, NaN included.
            entropy: of the policy at each position in nats; logged as its mean.
            normalizer: of the whole batch, when this is a micro-batch of it: the losses then add up.
            log_prox: not read.

        Raises:
            ValueError: shapes don't match, the anchor is missing or not finite, or the value has not been fitted.
        """
        del log_prox
        if self.fits_minibatch:
            raise ValueError(f"value {self.value!r} is of a whole minibatch: call fitted(…) on it first")
        log_ratio = self._log_ratio(log_pi, log_mu, log_ref, advantages, mask)
        residual = self.beta * log_ratio - advantages.detach().to(log_ratio.dtype)[:, None]
        counted = mask.any(dim=1, keepdim=True)
        losses = torch.where(counted, 0.5 * residual**2 / self.beta, 0.0)
        terms = spread(losses, mask, level=self.level)
        total = self.normalizer(mask) if normalizer is None else normalizer
        loss = reduce_terms(terms, mask, reduce=self.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = {
            "residual_mean": residual.detach()[counted].mean(),
            "residual_rms": residual.detach()[counted].square().mean().sqrt(),
        }
        metrics |= self._metrics(log_pi.detach(), log_mu, log_ref, mask)
        if entropy is not None:
            metrics["entropy"] = entropy.detach()[mask].mean()
        return ObjectiveOutput(loss, terms, as_numbers(metrics))

    def _log_ratio(
        self, log_pi: Tensor, log_mu: Tensor | None, log_ref: Tensor | None, advantages: Tensor, mask: Tensor
    ) -> Float[Tensor, "batch 1"]:
        """L of each row, everything checked and masked entries cleared first."""
        name, anchor = ("log_mu", log_mu) if self.anchor == "mu" else ("log_ref", log_ref)
        if anchor is None:
            raise ValueError(f"{name} is None, and it is the anchor of this loss; pass it")
        check_tensors(log_pi, {name: anchor}, advantages, mask, per_sequence=True)
        dtype = working_dtype(log_pi, anchor, advantages)
        per_token = torch.where(mask, log_pi.to(dtype), 0.0) - torch.where(mask, anchor.detach().to(dtype), 0.0)
        return to_units(per_token, mask, level=self.level)

    def _metrics(
        self, log_pi: Tensor, log_mu: Tensor | None, log_ref: Tensor | None, mask: Tensor
    ) -> dict[str, Tensor]:
        """Those of the ratio to μ where μ is the anchor, else what can be said without it."""
        anchor = log_mu if self.anchor == "mu" else log_ref
        assert anchor is not None
        dtype = working_dtype(log_pi, anchor)
        log_pi, anchor = (torch.where(mask, values.to(dtype), 0.0) for values in (log_pi, anchor))
        log_ratio = log_pi - anchor
        metrics = data_metrics(log_pi, None, mask) | {"log_pi_anchor_mean": log_ratio[mask].mean()}
        if self.anchor != "mu":
            return metrics
        of_units = [
            to_units(values, mask, level=self.level) for values in (log_pi, log_ratio, torch.zeros_like(log_pi))
        ]
        units = Units(*of_units, advantages=of_units[-1], mask=unit_mask(mask, level=self.level))
        return (
            metrics
            | ratio_metrics(log_ratio, None, mask, weight_bound=WEIGHT_BOUND)
            | weight_metrics(units, weight_bound=WEIGHT_BOUND)
            | bound_metrics(units, weight_bound=WEIGHT_BOUND)
        )


def _group_means(
    targets: Float[Tensor, " batch"],
    counted: Bool[Tensor, " batch"],
    groups: Int[Tensor, " batch"],
    *,
    alone: Float[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return the mean target of each row's group; `alone` where no other counted row shares it."""
    same = (groups[:, None] == groups[None, :]) & counted[None, :]
    sizes = same.sum(dim=1).to(targets.dtype)
    sums = same.to(targets.dtype) @ targets
    return torch.where(sizes > 1, sums / sizes.clamp(min=1), alone)
