"""KTO: thumbs up and down, one response each, no pairs and no log μ."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.declarations import require
from klimb.losses.inputs import (
    Inputs,
    ObjectiveOutput,
    as_numbers,
    normalizer,
    reduce_terms,
    spread,
    takes_tensors,
    working_dtype,
)
from klimb.losses.measures import data_metrics, entropy_metrics
from klimb.losses.names import require_reduction
from klimb.losses.settings import KtoSettings


@dataclass(frozen=True, kw_only=True)
class KtoObjective(KtoSettings):
    """The prospect-theoretic loss of a response: x = Σ_t log(π/ref), σ the logistic function.

        desirable (A = +1)      λ_D·(1 − σ(β·(x − z₀)))
        undesirable (A = −1)    λ_U·(1 − σ(β·(z₀ − x)))

    z₀ = max(0, mean of x over the minibatch), without gradient: what the policy already gives to everything.

    Its settings are those of `KtoSettings`: β, the weights λ_D and λ_U, and the reduction.

    Attributes:
        reference_point: z₀; None until `prepare` has seen the minibatch.

    Raises:
        ValueError: a setting is out of its range.

    Source: arXiv 2402.01306. There z₀ estimates KL(π‖ref) from each prompt paired with another
    prompt's response, which costs another forward pass; here it is the mean over the responses as they are paired.
    """

    reference_point: float | None = None

    def __post_init__(self) -> None:
        KtoSettings.__post_init__(self)
        if self.reference_point is not None:
            require(math.isfinite(self.reference_point), "reference_point", self.reference_point, "finite")
        require_reduction(self.reduce)

    @property
    def needs_log_prox(self) -> bool:
        """False: log_prox is not read."""
        return False

    @property
    def needs_minibatch(self) -> bool:
        """Whether the reference point is still to be found."""
        return self.reference_point is None

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return normalizer(mask, reduce=self.reduce)

    @torch.no_grad()
    def prepare(self, inputs: Inputs) -> "tuple[KtoObjective, Inputs]":
        """Return the same with z₀ = max(0, mean of x) over the rows of the whole minibatch; the inputs as they are.

        Raises:
            ValueError: log_ref is missing or not finite, an advantage is not ±1, or no token counts.
        """
        log_ratio = self._log_ratio(inputs)
        if not bool(inputs.mask.any()):
            raise ValueError("no token of this minibatch counts, so there is no reference point; pass a mask with some")
        # A row that the policy broke makes the loss not finite by itself; the others keep a reference point.
        averaged = inputs.mask.any(dim=1) & log_ratio.isfinite()
        point = max(0.0, float(log_ratio[averaged].mean())) if bool(averaged.any()) else 0.0
        return replace(self, reference_point=point), inputs

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics, as `Objective` does; log_mu and log_prox are not read.

        The advantages are [batch], +1 for a desirable response and −1 for an undesirable one.

        Raises:
            ValueError: shapes don't match, log_ref is missing or not finite, an advantage is not ±1, or the
                reference point is not known yet.
        """
        if self.reference_point is None:
            raise ValueError("the reference point of KTO is of a whole minibatch: call prepare(…) on it first")
        mask, log_ratio = inputs.mask, self._log_ratio(inputs)
        signs = inputs.advantages.detach().to(log_ratio.dtype)
        weights = torch.where(signs > 0, self.desirable_weight, self.undesirable_weight)
        # 1 − σ(u) = σ(−u), which keeps its digits where σ(u) rounds to 1.
        losses = weights * torch.sigmoid(-self.beta * signs * (log_ratio - self.reference_point))
        counted = mask.any(dim=1)
        terms = spread(torch.where(counted, losses, 0.0)[:, None], mask, level="sequence")
        total = self.normalizer(mask) if inputs.normalizer is None else inputs.normalizer
        loss = reduce_terms(terms, mask, reduce=self.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = data_metrics(inputs)
        metrics["kto_reference_point"] = torch.tensor(self.reference_point, device=log_ratio.device)
        for name, rows in (("desirable", counted & (signs > 0)), ("undesirable", counted & (signs < 0))):
            if bool(rows.any()):
                metrics[f"log_pi_ref_{name}_mean"] = log_ratio.detach()[rows].mean()
        return ObjectiveOutput(loss, terms, as_numbers(metrics | entropy_metrics(inputs)))

    def _log_ratio(self, inputs: Inputs) -> Float[Tensor, " batch"]:
        """Return the x of each row, everything checked and masked entries cleared first."""
        log_pi, log_ref, advantages, mask = inputs.log_pi, inputs.log_ref, inputs.advantages, inputs.mask
        if log_ref is None:
            raise ValueError("log_ref is None, and KTO compares with the reference; pass its log-probabilities")
        inputs.check("log_ref", per_sequence=True)
        wrong = mask.any(dim=1) & (advantages.abs() != 1)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"KTO takes an advantage of +1 (desirable) or −1 (undesirable), got {float(advantages[row])} at row "
                f"{row}; use the advantages 'binary-feedback'"
            )
        dtype = working_dtype(log_pi, log_ref, advantages)
        per_token = torch.where(mask, log_pi.to(dtype), 0.0) - torch.where(mask, log_ref.detach().to(dtype), 0.0)
        return per_token.sum(dim=1)
