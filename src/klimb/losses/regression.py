"""The squared-residual family: regress the log-ratio to an anchor onto the advantage that it has at the optimum.

The optimum of E_π[R] − β·KL(π‖anchor) is π* = anchor·exp(R/β)/Z, so there β·log(π*/anchor) = R − V* with
V* = β·log Z for every response. A loss that is 0 exactly there needs no importance weight, whatever drew the data.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.losses.inputs import (
    WEIGHT_BOUND,
    Inputs,
    ObjectiveOutput,
    Units,
    as_numbers,
    normalizer,
    reduce_terms,
    spread,
    takes_tensors,
    to_units,
    unit_mask,
    working_dtype,
)
from klimb.losses.measures import bound_metrics, data_metrics, entropy_metrics, ratio_metrics, weight_metrics
from klimb.losses.names import require_reduction
from klimb.losses.settings import SquaredResidualSettings


@dataclass(frozen=True, kw_only=True)
class SquaredResidual(SquaredResidualSettings):
    """½·(β·L − A)²/β for each sequence, L = Σ_t log(π/anchor).

    The division by β makes the gradient (β·L − A)·∇L: at π = anchor it is −A·∇log π, that of REINFORCE, so that a
    learning rate means the same for every β. The factor moves no minimum.

    Its settings are those of `SquaredResidualSettings`.

    Attributes:
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

    def __post_init__(self) -> None:
        SquaredResidualSettings.__post_init__(self)
        require_reduction(self.reduce)

    @property
    def needs_log_prox(self) -> bool:
        """False: log_prox is not read."""
        return False

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return normalizer(mask, reduce=self.reduce)

    @torch.no_grad()
    def prepare(self, inputs: Inputs) -> "tuple[SquaredResidual, Inputs]":
        """Return the loss that takes A as given, and A = r − V with the V that minimises the loss of this minibatch.

        A minibatch of one response is fitted exactly: its residual is 0 and it teaches nothing. With `value = "given"`
        everything comes back as it is.

        Args:
            inputs: of the whole minibatch under the present policy. The advantages are the rewards r. A row without a
                counted token is in no mean. `group-optimal` reads the groups.

        Raises:
            ValueError: the anchor is missing or not finite, or the groups are missing.
        """
        if self.value == "given":
            return self, inputs
        log_ratio = self._log_ratio(inputs)[:, 0]
        counted, rewards = inputs.mask.any(dim=1), inputs.advantages
        # A row that the policy broke makes the loss not finite by itself; the others keep a value.
        averaged = counted & log_ratio.isfinite()
        targets = torch.where(averaged, rewards.to(log_ratio.dtype) - self.beta * log_ratio, 0.0)
        values = (targets.sum() / averaged.sum().clamp(min=1)).expand_as(targets)
        if self.value == "group-optimal":
            if inputs.groups is None:
                raise ValueError("groups is None, and value 'group-optimal' is of each group; pass their numbers")
            values = _group_means(targets, averaged, inputs.groups, alone=values)
        return replace(self, value="given"), replace(inputs, advantages=rewards - values.to(rewards.dtype))

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics, as `Objective` does; only the anchor's log-probabilities are read.

        The advantages are [batch], A = r − V.

        Raises:
            ValueError: shapes don't match, the anchor is missing or not finite, or the value is not known yet.
        """
        if self.needs_minibatch:
            raise ValueError(f"value {self.value!r} is of a whole minibatch: call prepare(…) on it first")
        mask, log_ratio = inputs.mask, self._log_ratio(inputs)
        residual = self.beta * log_ratio - inputs.advantages.detach().to(log_ratio.dtype)[:, None]
        counted = mask.any(dim=1, keepdim=True)
        losses = torch.where(counted, 0.5 * residual**2 / self.beta, 0.0)
        terms = spread(losses, mask, level=self.level)
        total = self.normalizer(mask) if inputs.normalizer is None else inputs.normalizer
        loss = reduce_terms(terms, mask, reduce=self.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = {
            "residual_mean": residual.detach()[counted].mean(),
            "residual_rms": residual.detach()[counted].square().mean().sqrt(),
        }
        return ObjectiveOutput(loss, terms, as_numbers(metrics | self._metrics(inputs) | entropy_metrics(inputs)))

    def _anchor(self, inputs: Inputs) -> Float[Tensor, "batch time"]:
        """Return the log-probabilities that the policy is compared with.

        Raises:
            ValueError: they are missing.
        """
        anchor = inputs.log_mu if self.anchor == "mu" else inputs.log_ref
        if anchor is None:
            raise ValueError(f"log_{self.anchor} is None, and it is the anchor of this loss; pass it")
        return anchor.detach()

    def _log_ratio(self, inputs: Inputs) -> Float[Tensor, "batch 1"]:
        """L of each row, everything checked and masked entries cleared first."""
        anchor, mask = self._anchor(inputs), inputs.mask
        inputs.check(f"log_{self.anchor}", per_sequence=True)
        dtype = working_dtype(inputs.log_pi, anchor, inputs.advantages)
        per_token = torch.where(mask, inputs.log_pi.to(dtype), 0.0) - torch.where(mask, anchor.to(dtype), 0.0)
        return to_units(per_token, mask, level=self.level)

    @torch.no_grad()
    def _metrics(self, inputs: Inputs) -> dict[str, Tensor]:
        """Those of the ratio to μ where μ is the anchor, else what can be said without it."""
        anchor, mask = self._anchor(inputs), inputs.mask
        dtype = working_dtype(inputs.log_pi, anchor)
        log_pi, anchor = (torch.where(mask, values.to(dtype), 0.0) for values in (inputs.log_pi, anchor))
        log_ratio = log_pi - anchor
        metrics = data_metrics(replace(inputs, log_pi=log_pi, log_ref=None))
        metrics["log_pi_anchor_mean"] = log_ratio[mask].mean()
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
