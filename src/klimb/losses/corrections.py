"""A third policy between μ and π: the clip acts on π/prox, and prox/μ corrects for who really drew the sample.

μ drew it, prox is the policy as it was when the update of the batch began, π is the policy now. Two things move π/μ
away from 1 and deserve different answers: the steps taken on this batch, π/prox, which a clip should bound, and what
lies before them, prox/μ (a stale or replayed sample, a sampler that computes differently), which a weight corrects.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.divergences import bound
from klimb.losses.clips import Mask, NoClip, Truncate
from klimb.losses.inputs import (
    LEVELS,
    Fitted,
    Level,
    ObjectiveOutput,
    as_numbers,
    check_tensors,
    num_tokens,
    reduce_terms,
    require,
    require_known,
    to_units,
    unit_mask,
    working_dtype,
)
from klimb.losses.measures import correction_metrics, ratio_metrics, renamed_for_prox, unit_weight_metrics
from klimb.losses.objective import Objective

Rule = NoClip | Truncate | Mask


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """An `Objective` with prox in place of μ, each of its terms times b̄, the bounded weight b = prox/μ of its unit.

        loss = Σ b̄·term(π/prox, ref/prox, A) / normaliser,   b̄ = rule(prox/μ), without gradient

    With no clip inside, `NoClip` as the rule and both at one level, b·(π/prox) = π/μ: the gradient is that of the
    objective itself. Every bound beyond that trades bias for variance. A penalty in the divergence's place is weighed
    like the rest. The normaliser is that of the objective: what is left out still counts in it.

    Attributes:
        objective: the policy gradient to correct.
        rule: `NoClip()` takes b as it is: the decoupled proximal policy. `Truncate(low=1, high=1)` is min(b, 2):
            truncated importance sampling. `Mask(0.5, 5)` keeps b inside of the band and drops the rest: IcePop at
            token level, MIS at sequence level. None makes no correction: the objective sees μ itself.
        level: what b is of: `token`, `prefix`, `sequence`, or `sequence-mean`.
        normalised: b̄ is divided by its mean over the units of the minibatch.
        off_policy_mask: δ in nats per token. Where A < 0, a response whose mean log(μ/π) exceeds δ is left out: what
            is bad and what the policy no longer says teaches nothing. None leaves out nothing.
        mean_weight: the mean that `normalised` divides by; None until `fitted` has seen the minibatch.

    Raises:
        ValueError: an objective that forms no ratio, or a setting out of its range.

    Source: arXiv 2110.00641 (decoupled); fengyao.notion.site/off-policy-rl (truncated); arXiv 2510.18855 (IcePop);
    arXiv 2512.02556 (off-policy sequence mask).
    """

    objective: Objective
    rule: Rule | None = field(default_factory=NoClip)
    level: Level = "token"
    normalised: bool = False
    off_policy_mask: float | None = None
    mean_weight: float | None = None

    def __post_init__(self) -> None:
        require_known("level", self.level, LEVELS)
        require(self.rule is not None or not self.normalised, "normalised", self.normalised, "False without a rule")
        if self.off_policy_mask is not None:
            require(self.off_policy_mask > 0, "off_policy_mask", self.off_policy_mask, "> 0 nats per token, or None")
        if self.rule is not None and self.objective.ratio == "none":
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
        return self.rule is not None

    @property
    def fits_minibatch(self) -> bool:
        """Whether the objective is still to be fitted, or the mean weight to be found."""
        return self.objective.fits_minibatch or (self.normalised and self.mean_weight is None)

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        return self.objective.normalizer(mask)

    @torch.no_grad()
    def fitted(
        self,
        log_pi: Tensor,
        log_mu: Tensor | None,
        log_ref: Tensor | None,
        advantages: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "batch time"],
        groups: Int[Tensor, " batch"],
        *,
        log_prox: Tensor | None = None,
    ) -> Fitted:
        """Return the same with its objective fitted and the mean weight of the minibatch known.

        Raises:
            ValueError: log_mu or log_prox is missing or not finite.
        """
        if not self.fits_minibatch:
            return Fitted(self, advantages)
        log_mu, log_inner = self._checked(log_pi, log_mu, log_prox, advantages, mask)
        inner = self.objective.fitted(log_pi, log_inner, log_ref, advantages, mask, groups)
        assert isinstance(inner.objective, Objective)
        found = replace(self, objective=inner.objective)
        if self.normalised:
            _, weights, _ = self._weights(log_mu, log_inner, mask)
            counted = weights[unit_mask(mask, level=self.level)]
            found = replace(found, mean_weight=float(counted.mean()) if counted.numel() else 1.0)
        return Fitted(found, inner.advantages)

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
        """Loss, terms and metrics, as `Objective` returns them.

        Args:
            log_pi: [batch, time], log-probability in nats of token t under the policy; it alone gets a gradient.
            log_mu: the same under the policy the token was really drawn from.
            log_ref: the same under the reference; None only when beta is 0.
            advantages: [batch], one per sequence, or [batch, time].
            mask: True where a token counts. Elsewhere anything may stand, NaN included.
            entropy: of the policy at each position in nats; logged as its mean.
            normalizer: of the whole batch, when this is a micro-batch of it: the losses then add up.
            log_prox: as log_mu, under the policy at the start of the update; not read without a rule.

        Raises:
            ValueError: as `Objective`; log_prox is missing or not finite; or it has not been fitted and must be.
        """
        if self.fits_minibatch:
            raise ValueError("this correction is of a whole minibatch: call fitted(…) on it first")
        log_mu, log_inner = self._checked(log_pi, log_mu, log_prox, advantages, mask)
        inner = self.objective(log_pi, log_inner, log_ref, advantages, mask, entropy=entropy)
        raw, weights, is_cut = self._weights(log_mu, log_inner, mask)
        dropped = self._dropped(log_pi, log_mu, advantages, mask)
        terms = torch.where(dropped, 0.0, inner.terms * (weights / (self.mean_weight or 1.0)))
        total = self.normalizer(mask) if normalizer is None else normalizer
        loss = reduce_terms(terms, mask, reduce=self.objective.reduce, normalizer=total)
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        metrics = self._metrics(inner, log_pi, log_mu, log_ref, mask)
        counted = unit_mask(mask, level=self.level)
        bounded = None if self.rule is None else self.objective.weight_bound
        added = correction_metrics(raw, is_cut, dropped, counted, mask, weight_bound=bounded)
        return ObjectiveOutput(loss, terms, metrics | as_numbers(added))

    def _checked(
        self, log_pi: Tensor, log_mu: Tensor | None, log_prox: Tensor | None, advantages: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log_mu, and what the objective takes for it."""
        if log_mu is None:
            raise ValueError("log_mu is None, and a correction compares with it; pass what was recorded while drawing")
        if self.rule is not None and log_prox is None:
            raise ValueError("log_prox is None, and the correction weighs by prox/μ; pass it as log_prox = …")
        check_tensors(log_pi, {"log_mu": log_mu, "log_prox": log_prox}, advantages, mask)
        return log_mu.detach(), log_mu.detach() if self.rule is None or log_prox is None else log_prox.detach()

    def _weights(self, log_mu: Tensor, log_prox: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each unit log b, b̄, and whether the rule changed it."""
        dtype = working_dtype(log_mu, log_prox)
        per_token = torch.where(mask, log_prox.to(dtype) - log_mu.to(dtype), 0.0)
        log_b = to_units(per_token, mask, level=self.level)
        b = bound(log_b, self.objective.weight_bound).exp()
        clipped = (self.rule or NoClip())(b, torch.ones_like(b, dtype=torch.bool))
        return log_b, clipped.w, clipped.low | clipped.high

    def _dropped(self, log_pi: Tensor, log_mu: Tensor, advantages: Tensor, mask: Tensor) -> Bool[Tensor, "batch time"]:
        """Return True for the tokens of a bad response that the policy no longer says."""
        if self.off_policy_mask is None:
            return torch.zeros_like(mask)
        dtype = working_dtype(log_pi, log_mu)
        gap = torch.where(mask, log_mu.to(dtype) - log_pi.detach().to(dtype), 0.0)
        is_far = gap.sum(dim=1, keepdim=True) / num_tokens(mask) > self.off_policy_mask
        per_token = advantages if advantages.ndim == 2 else advantages[:, None]
        return is_far & (per_token < 0) & mask

    def _metrics(
        self, inner: ObjectiveOutput, log_pi: Tensor, log_mu: Tensor, log_ref: Tensor | None, mask: Tensor
    ) -> dict[str, float]:
        """Return the objective's metrics with those of π/μ in their usual places and those of π/prox beside them."""
        if self.rule is None:
            return inner.metrics
        dtype = working_dtype(log_pi, log_mu, log_ref)
        mu = torch.where(mask, log_mu.to(dtype), 0.0)
        log_w = torch.where(mask, log_pi.detach().to(dtype), 0.0) - mu
        log_v = None if log_ref is None else torch.where(mask, log_ref.detach().to(dtype), 0.0) - mu
        of_mu = ratio_metrics(log_w, log_v, mask, weight_bound=self.objective.weight_bound)
        of_mu |= unit_weight_metrics(
            to_units(log_w, mask, level=self.objective.level)[unit_mask(mask, level=self.objective.level)],
            weight_bound=self.objective.weight_bound,
        )
        return renamed_for_prox(inner.metrics) | as_numbers(of_mu)
