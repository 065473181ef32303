"""A third policy between μ and π: the clip acts on π/prox, and prox/μ corrects for who really drew the sample.

μ drew it, prox is the policy as it was when the update of the batch began, π is the policy now. Two things move π/μ
away from 1 and deserve different answers: the steps taken on this batch, π/prox, which a clip should bound, and what
lies before them, prox/μ (a stale or replayed sample, a sampler that computes differently), which a weight corrects.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from klimb.divergences import bound
from klimb.losses.clips import NoClip
from klimb.losses.inputs import (
    Inputs,
    ObjectiveOutput,
    as_numbers,
    entropy_terms,
    num_tokens,
    reduce_terms,
    takes_tensors,
    to_units,
    unit_mask,
    working_dtype,
)
from klimb.losses.measures import correction_metrics, ratio_metrics, rename_for_prox, unit_weight_metrics
from klimb.losses.objective import Objective
from klimb.losses.settings import Correction, DecoupledCorrection


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """An `Objective` with prox in place of μ, each of its terms times b̄, the bounded weight b = prox/μ of its unit.

        loss = Σ b̄·term(π/prox, ref/prox, A) / normaliser,   b̄ = rule(prox/μ), without gradient

    With no clip inside, b as it is and both at one level, b·(π/prox) = π/μ: the gradient is that of the
    objective itself. Every bound beyond that trades bias for variance. A penalty in the divergence's place is weighed
    like the rest; the entropy bonus has no weight and is not left out. The normaliser is that of the objective: what is
    left out still counts in it.

    Attributes:
        objective: the policy gradient to correct.
        correction: how: `DecoupledCorrection()` takes b as it is. `TruncatedCorrection(high=2)` is min(b, 2):
            truncated importance sampling. `NormalisedCorrection` divides that by its mean over the units of the
            minibatch. `MaskedCorrection(low=0.5, high=5)` keeps b inside of the band and drops the rest: IcePop at
            token level, MIS at sequence level. `NoCorrection` has no weight: the objective sees μ itself. With an
            `off_policy_mask` δ, where A < 0 a response whose mean log(μ/π) exceeds δ is left out: what is bad and
            what the policy no longer says teaches nothing.
        mean_weight: the mean that the normalised one divides by; None until `prepare` has seen the minibatch.

    Raises:
        ValueError: an objective that forms no ratio.

    Source: arXiv 2110.00641 (decoupled); fengyao.notion.site/off-policy-rl (truncated); arXiv 2510.18855 (IcePop);
    arXiv 2512.02556 (off-policy sequence mask).
    """

    objective: Objective
    correction: Correction = field(default_factory=DecoupledCorrection)
    mean_weight: float | None = None

    def __post_init__(self) -> None:
        if self.correction.rule is not None and self.objective.ratio == "none":
            raise ValueError(
                "a correction by prox/μ needs an objective that forms π/μ, got ratio = 'none'; "
                "leave the correction out, or use ratio = 'recorded'"
            )

    @property
    def beta(self) -> float:
        """That of the objective."""
        return self.objective.beta

    @property
    def needs_log_mu(self) -> bool:
        """True: both the weight and the mask read it."""
        return True

    @property
    def needs_log_ref(self) -> bool:
        """That of the objective."""
        return self.objective.needs_log_ref

    @property
    def needs_log_prox(self) -> bool:
        """Whether there is a weight prox/μ."""
        return self.correction.rule is not None

    @property
    def needs_entropy(self) -> bool:
        """That of the objective."""
        return self.objective.needs_entropy

    @property
    def needs_minibatch(self) -> bool:
        """Whether the objective is still to be prepared, or the mean weight to be found."""
        return self.objective.needs_minibatch or (self.correction.normalised and self.mean_weight is None)

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return self.objective.normalizer(mask)

    @torch.no_grad()
    def prepare(self, inputs: Inputs) -> "tuple[Corrected, Inputs]":
        """Return the same with its objective prepared and the mean weight of the minibatch known.

        Raises:
            ValueError: log_mu or log_prox is missing or not finite.
        """
        if not self.needs_minibatch:
            return self, inputs
        log_mu, log_inner = self._check(inputs)
        objective, inner = self.objective.prepare(replace(inputs, log_mu=log_inner))
        found = replace(self, objective=objective)
        if self.correction.normalised:
            _, weights, _ = self._weights(log_mu, log_inner, inputs.mask)
            counted = weights[unit_mask(inputs.mask, level=self.correction.level)]
            found = replace(found, mean_weight=float(counted.mean()) if counted.numel() else 1.0)
        return found, replace(inner, log_mu=inputs.log_mu)

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics, as `Objective` does; log_prox is not read without a rule.

        Raises:
            ValueError: as `Objective`; log_prox is missing or not finite; or it has not been prepared and must be.
        """
        if self.needs_minibatch:
            raise ValueError("this correction is of a whole minibatch: call prepare(…) on it first")
        mask = inputs.mask
        log_mu, log_inner = self._check(inputs)
        weighed = replace(self.objective, entropy_bonus=0.0) if self.needs_entropy else self.objective
        inner = weighed(replace(inputs, log_mu=log_inner, normalizer=None))
        raw, weights, is_cut = self._weights(log_mu, log_inner, mask)
        dropped = self._find_dropped(inputs, log_mu)
        terms = torch.where(dropped, 0.0, inner.terms * (weights / (self.mean_weight or 1.0)))
        if self.needs_entropy:
            terms = terms + entropy_terms(inputs, self.objective.entropy_bonus)
        total = self.normalizer(mask) if inputs.normalizer is None else inputs.normalizer
        loss = reduce_terms(terms, mask, reduce=self.objective.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = self._metrics(inner, inputs, log_mu)
        teaches = mask & ~dropped & (weights != 0)
        if bool((mask & ~teaches).any()):
            metrics |= self.objective.measure_clip(replace(inputs, log_mu=log_inner), teaches)
        counted = unit_mask(mask, level=self.correction.level)
        bounded = None if self.correction.rule is None else self.objective.weight_bound
        added = correction_metrics(raw, is_cut, dropped, counted, mask, weight_bound=bounded)
        return ObjectiveOutput(loss, terms, metrics | as_numbers(added))

    def _check(self, inputs: Inputs) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
        """Return log_mu, and what the objective takes for it."""
        log_mu, log_prox = inputs.log_mu, inputs.log_prox
        if log_mu is None:
            raise ValueError("log_mu is None, and a correction compares with it; pass what was recorded while drawing")
        if self.correction.rule is not None and log_prox is None:
            raise ValueError("log_prox is None, and the correction weighs by prox/μ; pass it as log_prox = …")
        inputs.check("log_mu", "log_prox")
        return (
            log_mu.detach(),
            log_mu.detach() if self.correction.rule is None or log_prox is None else log_prox.detach(),
        )

    def _weights(self, log_mu: Tensor, log_prox: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each unit log b, b̄, and whether the rule changed it."""
        dtype = working_dtype(log_mu, log_prox)
        per_token = torch.where(mask, log_prox.to(dtype) - log_mu.to(dtype), 0.0)
        log_b = to_units(per_token, mask, level=self.correction.level)
        b = bound(log_b, self.objective.weight_bound).exp()
        clipped = (self.correction.rule or NoClip())(b, torch.ones_like(b, dtype=torch.bool))
        return log_b, clipped.w, clipped.low | clipped.high

    def _find_dropped(self, inputs: Inputs, log_mu: Float[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
        """Return True for the tokens of a bad response that the policy no longer says."""
        mask = inputs.mask
        if self.correction.off_policy_mask is None:
            return torch.zeros_like(mask)
        dtype = working_dtype(inputs.log_pi, log_mu)
        gap = torch.where(mask, log_mu.to(dtype) - inputs.log_pi.detach().to(dtype), 0.0)
        is_far = gap.sum(dim=1, keepdim=True) / num_tokens(mask) > self.correction.off_policy_mask
        return is_far & (inputs.token_advantages < 0) & mask

    @torch.no_grad()
    def _metrics(self, inner: ObjectiveOutput, inputs: Inputs, log_mu: Float[Tensor, "batch time"]) -> dict[str, float]:
        """Return the objective's metrics with those of π/μ in their usual places and those of π/prox beside them."""
        if self.correction.rule is None:
            return inner.metrics
        mask, log_ref = inputs.mask, inputs.log_ref
        dtype = working_dtype(inputs.log_pi, log_mu, log_ref)
        mu = torch.where(mask, log_mu.to(dtype), 0.0)
        log_w = torch.where(mask, inputs.log_pi.to(dtype), 0.0) - mu
        log_v = None if log_ref is None else torch.where(mask, log_ref.to(dtype), 0.0) - mu
        of_mu = ratio_metrics(log_w, log_v, mask, weight_bound=self.objective.weight_bound)
        of_mu |= unit_weight_metrics(
            to_units(log_w, mask, level=self.objective.level)[unit_mask(mask, level=self.objective.level)],
            weight_bound=self.objective.weight_bound,
        )
        return rename_for_prox(inner.metrics) | as_numbers(of_mu)
