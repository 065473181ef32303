"""Pairs of answers to one prompt: DPO, IPO, and the squared residual of a pair.

The maximiser of E_π[R] − β·D_f(π, anchor) has β·f′(π*/anchor) = R − const for each answer to a prompt, f′ the slope of
the divergence's f. The constant is the prompt's own and falls out of the difference of two answers. So a pair needs no
baseline, no importance weight and no normaliser, whatever drew the answers. With reverse KL f′(r) is log r + 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from klimb.divergences import Divergence, bound, divergence_named
from klimb.losses.inputs import (
    WEIGHT_BOUND,
    Inputs,
    ObjectiveOutput,
    as_numbers,
    spread,
    takes_tensors,
    to_units,
    working_dtype,
)
from klimb.losses.measures import data_metrics, entropy_metrics
from klimb.losses.names import Anchor, SequenceLevel
from klimb.losses.settings import PAIR_SLOPES, PairwiseSettings


@dataclass(frozen=True, kw_only=True)
class PairwiseLoss(PairwiseSettings):
    """The mean over all pairs (i, j) of a group with R_i > R_j, of the minibatch as a whole.

    With x = Σ_t log(π/anchor), s = f′(exp(x)), h = β·(s_i − s_j) and σ the logistic function:

        dpo     −(1 − ε)·log σ(h) − ε·log σ(−h)        ε = label_smoothing
        ipo     (x_i − x_j − 1/(2β))²
        rebel   ½·(h − (R_i − R_j))²/β

    Equal rewards make no pair. The advantages are the rewards; what all answers of a group have in common is read by
    none of the three. Where exp(±x) enters f′ it is taken of x bounded to ±`WEIGHT_BOUND`, counted in
    `num_bound_hits`; rkl and urkl take x as it is.

    A pair may fall into two micro-batches. `prepare` therefore takes the derivative of this loss with respect to each
    answer's x, under the present policy, and returns the loss that has exactly this gradient, row by row. Called
    without `prepare` on a whole minibatch with its groups, it is differentiated through.

    Its settings are those of `PairwiseSettings`.

    Raises:
        ValueError: a setting is unknown or out of its range.

    Source: arXiv 2305.18290, equation 7 (DPO); 2309.16240 (other divergences); 2310.12036, equation 17 (IPO);
    2404.16767, algorithm 1 (REBEL), with the anchor as an option.
    """

    @property
    def needs_log_prox(self) -> bool:
        """False: log_prox is not read."""
        return False

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Raise: how many pairs there are is known once `prepare` has seen the groups.

        Raises:
            ValueError: always.
        """
        raise ValueError("a loss of pairs is divided by their number, which is of a whole minibatch: call prepare(…)")

    @torch.no_grad()
    def prepare(self, inputs: Inputs) -> "tuple[PairGradient, Inputs]":
        """Return the loss of each row, and −∂(Σ over pairs)/∂x as its advantage.

        Args:
            inputs: of the whole minibatch under the present policy. The advantages are the rewards.

        Raises:
            ValueError: the anchor is missing or not finite, or the groups are missing.
        """
        log_ratio = self._log_ratio(inputs).detach()
        pairs = self._pairs(inputs)
        with torch.enable_grad():
            leaf = log_ratio.clone().requires_grad_()
            total = self._losses(leaf, inputs.advantages, pairs).sum()
            (slope,) = torch.autograd.grad(total, leaf)
        prepared = PairGradient(
            anchor=self.anchor,
            level=self.level,
            num_pairs=len(pairs.better),
            total=float(total.detach()),
            num_rows=int((slope != 0).sum()),
            of_pairs=self._measure(log_ratio, pairs),
        )
        return prepared, replace(inputs, advantages=-slope.to(inputs.advantages.dtype))

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics of a whole minibatch with its groups; a pair's loss is shared by its rows.

        Raises:
            ValueError: shapes don't match, the anchor is missing or not finite, or the groups are missing.
        """
        log_ratio, pairs, mask = self._log_ratio(inputs), self._pairs(inputs), inputs.mask
        losses = 0.5 * self._losses(log_ratio, inputs.advantages, pairs)
        rows = torch.zeros_like(log_ratio).index_add(0, pairs.better, losses).index_add(0, pairs.worse, losses)
        terms = spread(rows[:, None], mask, level=self.level)
        loss = rows.sum() / max(1, len(pairs.better))
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        return ObjectiveOutput(
            loss, terms, self._measure(log_ratio.detach(), pairs) | _measure_rows(inputs, self.anchor)
        )

    @cached_property
    def _slope(self) -> Divergence:
        return divergence_named(self.divergence)

    def _losses(
        self, log_ratio: Float[Tensor, " batch"], rewards: Float[Tensor, " batch"], pairs: "Pairs"
    ) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair."""
        if self.form == "ipo":
            return (pairs.differences(log_ratio) - 0.5 / self.beta) ** 2
        margins = self.beta * pairs.differences(self._slopes(log_ratio))
        if self.form == "rebel":
            return 0.5 * (margins - pairs.differences(rewards.to(margins.dtype))) ** 2 / self.beta
        smoothing = self.label_smoothing
        return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)

    def _slopes(self, log_ratio: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return f′(exp(x)): the slope w·f′(w/v) at w = 1, which has closed forms where f′ would overflow."""
        if self.divergence in PAIR_SLOPES:
            return log_ratio
        x = bound(log_ratio, WEIGHT_BOUND)
        return self._slope.slope(torch.ones_like(x), (-x).exp(), x)

    def _log_ratio(self, inputs: Inputs) -> Float[Tensor, " batch"]:
        """Return the x of each row, everything checked first."""
        inputs.check(f"log_{self.anchor}", per_sequence=True)
        return _log_ratio(inputs, anchor=self.anchor, level=self.level)

    def _pairs(self, inputs: Inputs) -> "Pairs":
        """Return the pairs of the minibatch.

        Raises:
            ValueError: the groups are missing.
        """
        if inputs.groups is None:
            raise ValueError("groups is None, and a pair is two answers of one group; pass their numbers")
        return find_pairs(inputs.advantages, inputs.mask.any(dim=1), inputs.groups)

    @torch.no_grad()
    def _measure(self, log_ratio: Float[Tensor, " batch"], pairs: "Pairs") -> dict[str, float]:
        """Return what the pairs say of the policy; a pair that is not finite is in no mean."""
        num_pairs = len(pairs.better)
        found = {"num_pairs": torch.tensor(num_pairs)}
        differences = pairs.differences(log_ratio)
        given = differences.isfinite()
        if bool(given.any()):
            found["pair_accuracy"] = (differences[given] > 0).to(log_ratio.dtype).mean()
            found["pair_margin"] = self.beta * pairs.differences(self._slopes(log_ratio))[given].mean()
        if self.divergence not in PAIR_SLOPES:
            in_pair = torch.zeros_like(log_ratio, dtype=torch.bool)
            in_pair[torch.cat([pairs.better, pairs.worse])] = True
            found["num_bound_hits"] = (in_pair & (log_ratio.abs() > WEIGHT_BOUND)).sum()
        return as_numbers(found)


@dataclass(frozen=True, kw_only=True)
class PairGradient:
    """A loss of pairs that knows its minibatch: −A·(x − x₀) a row, A = −∂(Σ over pairs)/∂x, x₀ the x of now.

    Its gradient is that of the pairs, and its value is theirs, shared evenly among the rows that have a gradient.

    Attributes:
        anchor: what x is the log-ratio to.
        level: the log-ratio of a response, or its mean over the tokens.
        num_pairs: of the minibatch: what the sum is divided by.
        total: the sum over the pairs.
        num_rows: rows with a gradient.
        of_pairs: metrics of the pairs, reported where all those rows are given.
    """

    anchor: Anchor
    level: SequenceLevel
    num_pairs: int
    total: float
    num_rows: int
    of_pairs: Mapping[str, float] = field(default_factory=dict[str, float])

    beta: float = 0.0
    """0: a row whose advantage is 0 is in no pair, or its pairs cancel, and has no gradient."""
    needs_log_prox: bool = False
    needs_entropy: bool = False
    needs_minibatch: bool = False

    @property
    def needs_log_mu(self) -> bool:
        """Whether log_mu is read: where it is the anchor."""
        return self.anchor == "mu"

    @property
    def needs_log_ref(self) -> bool:
        """Whether log_ref is read: where it is the anchor."""
        return self.anchor == "ref"

    def normalizer(self, mask: Bool[Tensor, "batch time"]) -> float:
        """Return the number of pairs of the minibatch, at least 1, whatever the rows."""
        return float(max(1, self.num_pairs))

    def prepare(self, inputs: Inputs) -> "tuple[PairGradient, Inputs]":
        """Return both as they are."""
        return self, inputs

    @takes_tensors
    def __call__(self, inputs: Inputs) -> ObjectiveOutput:
        """Return loss, terms and metrics of a micro-batch; its advantages are those that `prepare` gave."""
        mask = inputs.mask
        log_ratio = _log_ratio(inputs, anchor=self.anchor, level=self.level)
        weights = inputs.advantages.detach().to(log_ratio.dtype)
        active = mask.any(dim=1) & (weights != 0)
        rows = torch.where(active, self.total / max(1, self.num_rows) - weights * (log_ratio - log_ratio.detach()), 0.0)
        terms = spread(rows[:, None], mask, level=self.level)
        total = self.normalizer(mask) if inputs.normalizer is None else inputs.normalizer
        loss = rows.sum() / total
        if not bool(mask.any()):
            return ObjectiveOutput(loss, terms)
        is_whole = int(active.sum()) == self.num_rows
        metrics = (dict(self.of_pairs) if is_whole else {}) | _measure_rows(inputs, self.anchor)
        return ObjectiveOutput(loss, terms, metrics)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of a minibatch two by two: answers to the same prompt, the first with the higher reward."""

    better: Int[Tensor, " pairs"]
    worse: Int[Tensor, " pairs"]

    def differences(self, values: Float[Tensor, " batch"]) -> Float[Tensor, " pairs"]:
        """Return the value of the better row less that of the worse one."""
        return values[self.better] - values[self.worse]


def find_pairs(
    rewards: Float[Tensor, " batch"], counted: Bool[Tensor, " batch"], groups: Int[Tensor, " batch"]
) -> Pairs:
    """Return all pairs of rows that count, are of one group, and differ in reward."""
    groups = groups.to(rewards.device)
    together = (groups[:, None] == groups[None, :]) & counted[:, None] & counted[None, :]
    better, worse = (together & (rewards[:, None] > rewards[None, :])).nonzero(as_tuple=True)
    return Pairs(better, worse)


def _log_ratio(inputs: Inputs, *, anchor: Anchor, level: SequenceLevel) -> Float[Tensor, " batch"]:
    """Return Σ_t log(π/anchor) of each row, or its mean; masked entries are cleared first.

    Raises:
        ValueError: the anchor is missing.
    """
    log_anchor = _anchor(inputs, anchor)
    dtype = working_dtype(inputs.log_pi, log_anchor, inputs.advantages)
    per_token = torch.where(inputs.mask, inputs.log_pi.to(dtype), 0.0)
    per_token = per_token - torch.where(inputs.mask, log_anchor.to(dtype), 0.0)
    return to_units(per_token, inputs.mask, level=level)[:, 0]


def _anchor(inputs: Inputs, anchor: Anchor) -> Float[Tensor, "batch time"]:
    found = inputs.log_mu if anchor == "mu" else inputs.log_ref
    if found is None:
        raise ValueError(f"log_{anchor} is None, and it is the anchor of this loss; pass it")
    return found.detach()


@torch.no_grad()
def _measure_rows(inputs: Inputs, anchor: Anchor) -> dict[str, float]:
    """Return means over the tokens of the rows that are given."""
    log_anchor = _anchor(inputs, anchor)
    metrics = data_metrics(replace(inputs, log_ref=None))
    metrics["log_pi_anchor_mean"] = (inputs.log_pi.to(log_anchor.dtype) - log_anchor)[inputs.mask].mean()
    return as_numbers(metrics | entropy_metrics(inputs))
