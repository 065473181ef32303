"""Looks at what an objective is called with before any arithmetic: shapes, mask, numbers that are not finite.

The unit whose probability is weighed: a token, a prefix, a whole sequence, or its per-token geometric mean.

From terms [batch, time] to one number, so that a batch cut into micro-batches gives the same gradient.

What an objective returns, and how its terms become one number.

What every objective promises, and the one door through which a loss sees a whole minibatch before it is cut.

Some losses need a number of the whole minibatch under the present policy: the value of a squared residual, the
reference point of KTO. Micro-batches cannot know it. So whoever trains does, once a minibatch,

    if objective.fits_minibatch:
        log_pi = the policy's log-probabilities of the minibatch, without gradient
        objective, advantages = objective.fitted(log_pi, log_mu, log_ref, advantages, mask, groups, log_prox=log_prox)

and then calls the fitted objective with the fitted advantages on every micro-batch. `log_prox`, the log-probabilities
of the policy as it was when the update of this batch began, is read by objectives with `needs_log_prox` alone.

One sentence for every setting out of its range: what came and what was expected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.declarations import require as require
from klimb.declarations import require_known as require_known
from klimb.losses.names import LEVELS as LEVELS
from klimb.losses.names import Level as Level
from klimb.losses.names import Reduce as Reduce
from klimb.losses.names import require_reduction as require_reduction


def check_tensors(
    log_pi: Tensor, others: Mapping[str, Tensor | None], advantages: Tensor, mask: Tensor, *, per_sequence: bool = False
) -> None:
    """Raise at the first thing that does not fit. A non-finite log_pi is let through: it gives a non-finite loss.

    Args:
        log_pi: [batch, time].
        others: log-probabilities that the loss reads, by name; None was not given.
        advantages: [batch], or [batch, time] unless `per_sequence`.
        mask: boolean, True counts.
        per_sequence: the loss weighs whole sequences, and one advantage each is all it takes.

    Raises:
        ValueError: shapes don't match, the mask isn't boolean, or a counted number isn't finite.
    """
    shape = tuple(log_pi.shape)
    if log_pi.ndim != 2:
        raise ValueError(f"log_pi must have shape [batch, time], got {list(shape)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True counts), got {mask.dtype}; convert with mask.bool()")
    given = {name: tensor for name, tensor in {**others, "mask": mask}.items() if tensor is not None}
    for name, tensor in given.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape of log_pi, {list(shape)}, got {list(tensor.shape)}")
    _check_advantages(advantages, shape, per_sequence=per_sequence)
    per_token = advantages if advantages.ndim == 2 else advantages[:, None].expand_as(mask)
    del given["mask"]
    for name, tensor in {**given, "advantages": per_token}.items():
        bad = mask & ~tensor.isfinite()
        if bool(bad.any()):
            row, time = (int(index) for index in bad.nonzero()[0])
            raise ValueError(
                f"{name} is {float(tensor[row, time])} at row {row}, position {time}, which counts (and at "
                f"{int(bad.sum())} positions in all); drop such samples or mask the tokens"
            )


def _check_advantages(advantages: Tensor, shape: tuple[int, ...], *, per_sequence: bool) -> None:
    if per_sequence and tuple(advantages.shape) != shape[:1]:
        raise ValueError(
            f"advantages must be [batch], one a sequence, of {list(shape)}, got {list(advantages.shape)}; "
            "this loss is one of whole sequences"
        )
    if tuple(advantages.shape) not in (shape, shape[:1]):
        raise ValueError(f"advantages must be [batch] or [batch, time] of {list(shape)}, got {list(advantages.shape)}")


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float32, or wider where an input is: log-ratios are never computed in less."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


WEIGHT_BOUND = 20.0
"""Log-weights of units are bounded to ±this before exp: exp(20) ≈ 5e8. Hits are counted in `num_bound_hits`."""


@dataclass(frozen=True)
class Units:
    """Log-probabilities summed up to units. Token and prefix levels have one unit a token, the others one a row."""

    log_pi: Float[Tensor, "batch units"]
    log_w: Float[Tensor, "batch units"]
    log_v: Float[Tensor, "batch units"]
    advantages: Float[Tensor, "batch units"]
    mask: Bool[Tensor, "batch units"]


def to_units(
    values: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch units"]:
    """Per-token log-values as log-values of units. `values` must be 0 where the mask is False.

    token: themselves. prefix: running sums, so that unit t is the prefix y_1..y_t. sequence: the sum.
    sequence-mean: the sum divided by the number of counted tokens (GSPO's length normalisation).
    """
    if level == "token":
        return values
    if level == "prefix":
        return values.cumsum(dim=1)
    total = values.sum(dim=1, keepdim=True)
    return total if level == "sequence" else total / num_tokens(mask)


def unit_mask(mask: Bool[Tensor, "batch time"], *, level: Level) -> Bool[Tensor, "batch units"]:
    """Which units count: every counted token, or every row that has one."""
    return mask if level in ("token", "prefix") else mask.any(dim=1, keepdim=True)


def unit_advantages(
    advantages: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch units"]:
    """Advantages of units: per token at token and prefix level, one a row otherwise.

    Raises:
        ValueError: a sequence level was given advantages that differ within a row.
    """
    if level in ("token", "prefix"):
        return advantages
    mean = advantages.sum(dim=1, keepdim=True) / num_tokens(mask)
    uneven = torch.where(mask, (advantages - mean).abs() > 1e-4 * (1 + mean.abs()), False)
    if bool(uneven.any()):
        row = int(uneven.any(dim=1).int().argmax())
        raise ValueError(
            f"level {level!r} weighs whole sequences and needs one advantage each, but the advantages of row {row} "
            "differ between its tokens; pass advantages of shape [batch], or use level 'token' or 'prefix'"
        )
    return mean


def spread(
    losses: Float[Tensor, "batch units"], mask: Bool[Tensor, "batch time"], *, level: Level
) -> Float[Tensor, "batch time"]:
    """Losses of units laid out over tokens so that a row still sums to its loss: a sequence's is shared evenly."""
    if level in ("token", "prefix"):
        return losses
    return torch.where(mask, losses / num_tokens(mask), 0.0)


def num_tokens(mask: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch 1"]:
    """Return counted tokens of each row, at least 1 so that an empty row divides nothing by zero."""
    return mask.sum(dim=1, keepdim=True).clamp(min=1).float()


def normalizer(mask: Bool[Tensor, "batch time"], *, reduce: Reduce) -> float:
    """Return what the sum over a whole batch is divided by: its tokens, its sequences, or sequences × fixed length.

    Rows without a counted token are padding and don't count as sequences. At least 1.
    """
    if reduce == "token-mean":
        return max(1.0, float(mask.sum()))
    num_sequences = max(1.0, float(mask.any(dim=1).sum()))
    return num_sequences * reduce if isinstance(reduce, int) else num_sequences


def reduce_terms(
    terms: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], *, reduce: Reduce, normalizer: float
) -> Float[Tensor, ""]:
    """Return the sum of the terms over the normalizer; `sequence-mean-token-mean` first averages within each row."""
    rows = terms.sum(dim=1, keepdim=True)
    if reduce == "sequence-mean-token-mean":
        rows = rows / num_tokens(mask)
    return rows.sum() / normalizer


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


def as_numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the metrics as floats, in one transfer from the device, not one a metric."""
    values = torch.stack([value.detach().double() for value in metrics.values()]).cpu()
    return {name: float(value) for name, value in zip(metrics, values, strict=True)}


@runtime_checkable
class Loss(Protocol):
    """Log-probabilities in, loss and metrics out."""

    @property
    def beta(self) -> float:
        """0 means that a row whose advantage is 0 has no gradient."""
        ...

    @property
    def needs_log_mu(self) -> bool:
        """False: log_mu is not read, whatever it holds, and may be None."""
        ...

    @property
    def needs_log_ref(self) -> bool:
        """Whether a reference takes part."""
        ...

    @property
    def needs_log_prox(self) -> bool:
        """Whether the policy at the start of the update takes part."""
        ...

    @property
    def fits_minibatch(self) -> bool:
        """True: `fitted` must be called on the whole minibatch first, and its result used in place of this."""
        ...

    def normalizer(self, mask: Bool[Tensor, "batch time"], /) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        ...

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
    ) -> "Fitted":
        """Return what this minibatch makes of the objective and of the advantages, without gradient."""
        ...

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
        """Loss, terms and metrics."""
        ...


class Fitted(NamedTuple):
    """An objective that knows its minibatch, and the advantages to call it with on each micro-batch."""

    objective: Loss
    advantages: Float[Tensor, "batch ..."]
