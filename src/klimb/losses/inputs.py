"""What goes into a loss and what comes out of it.

`Inputs` holds the log-probabilities of some responses under every policy that takes part. Its shapes are checked when
it is made, its numbers by `check`, where a loss says which of them it reads. A loss weighs units: tokens, prefixes,
whole sequences, or their per-token geometric mean. Its terms [batch, time] become one number such that a batch cut into
micro-batches gives the same gradient.

Some losses need a number of the whole minibatch under the present policy: the value of a squared residual, the
reference point of KTO. Micro-batches cannot know it. So whoever trains does, once a minibatch,

    if loss.needs_minibatch:
        loss, inputs = loss.prepare(inputs)  # inputs.log_pi: of the whole minibatch, without gradient

and then calls that loss on micro-batches of these inputs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.experience.batches import Batch
from klimb.losses.names import Level, Reduce


@dataclass(frozen=True, eq=False)
class Inputs:
    """Responses as a loss sees them. Every tensor is [batch, time] unless it says otherwise.

    Attributes:
        log_pi: log-probability in nats of token t under the policy; with the entropy it alone gets a gradient.
        log_mu: the same under the policy that the token was really drawn from; None for losses that do not read it.
        log_ref: the same under the reference (log-mass, if it is unnormalised). `log_mu` for ref = μ.
        advantages: [batch], one a sequence, or [batch, time].
        mask: True where a token counts. Elsewhere anything may stand, NaN included.
        entropy: of the policy at each position in nats; logged as its mean, and a term of a loss with a bonus for it.
        normalizer: of the whole batch, when this is a micro-batch of it: the losses then add up.
        log_prox: as log_mu, under the policy as it was when the update of this batch began.
        groups: [batch], responses to the same prompt share a number; read by `prepare` alone.

    Raises:
        ValueError: shapes don't match, or the mask isn't boolean.
    """

    log_pi: Float[Tensor, "batch time"]
    log_mu: Float[Tensor, "batch time"] | None
    log_ref: Float[Tensor, "batch time"] | None
    advantages: Float[Tensor, "batch ..."]
    mask: Bool[Tensor, "batch time"]
    entropy: Float[Tensor, "batch time"] | None = None
    normalizer: float | None = None
    log_prox: Float[Tensor, "batch time"] | None = None
    groups: Int[Tensor, " batch"] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.log_pi.shape)
        if len(shape) != 2:
            raise ValueError(f"log_pi must have shape [batch, time], got {list(shape)}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean (True counts), got {self.mask.dtype}; convert with mask.bool()")
        for name in ("log_mu", "log_ref", "log_prox", "entropy", "mask"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have the shape of log_pi, {list(shape)}, got {list(tensor.shape)}")
        if tuple(self.advantages.shape) not in (shape, shape[:1]):
            raise ValueError(
                f"advantages must be [batch] or [batch, time] of {list(shape)}, got {list(self.advantages.shape)}"
            )

    @classmethod
    def of(
        cls,
        batch: Batch,
        log_pi: Float[Tensor, "batch time"],
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        entropy: Float[Tensor, "batch time"] | None = None,
        normalizer: float | None = None,
        groups: Int[Tensor, " batch"] | None = None,
    ) -> "Inputs":
        """Return a batch with what the policy says of it; without a mask every token of the batch counts."""
        return cls(
            log_pi=log_pi,
            log_mu=batch.log_mu,
            log_ref=batch.log_ref,
            advantages=batch.advantages,
            mask=batch.mask if mask is None else mask,
            entropy=entropy,
            normalizer=normalizer,
            log_prox=batch.log_prox,
            groups=groups,
        )

    @property
    def token_advantages(self) -> Float[Tensor, "batch time"]:
        """One advantage a token: that of its sequence where there is one a sequence."""
        return self.advantages if self.advantages.ndim == 2 else self.advantages[:, None].expand_as(self.mask)

    def select(self, rows: Sequence[int]) -> "Inputs":
        """Return these rows in this order, without the columns behind their last counted token."""
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.mask.device)
        counted = self.mask[index].any(dim=0).nonzero()
        width = int(counted[-1]) + 1 if len(counted) else 1

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[index, :width] if values.ndim == 2 else values[index]

        names = ("log_pi", "log_mu", "log_ref", "advantages", "mask", "entropy", "log_prox", "groups")
        return replace(self, **{name: cut(getattr(self, name)) for name in names})

    def check(self, *read: str, per_sequence: bool = False) -> None:
        """Raise unless what a loss reads are numbers. A non-finite log_pi is let through: it gives a non-finite loss.

        Args:
            read: names of the log-probabilities that the loss reads besides log_pi; None was not given.
            per_sequence: the loss weighs whole sequences, and one advantage each is all it takes.

        Raises:
            ValueError: a counted log-probability or advantage isn't finite, or advantages are one a token.
        """
        if per_sequence and self.advantages.ndim != 1:
            raise ValueError(
                f"advantages must be [batch], one a sequence, of {list(self.mask.shape)}, got "
                f"{list(self.advantages.shape)}; this loss is one of whole sequences"
            )
        given: dict[str, Tensor | None] = {name: getattr(self, name) for name in read}
        for name, tensor in {**given, "advantages": self.token_advantages}.items():
            if tensor is not None:
                _check_finite(name, tensor, self.mask)


def _check_finite(name: str, values: Tensor, mask: Tensor) -> None:
    bad = mask & ~values.isfinite()
    if bool(bad.any()):
        row, time = (int(index) for index in bad.nonzero()[0])
        raise ValueError(
            f"{name} is {float(values[row, time])} at row {row}, position {time}, which counts (and at "
            f"{int(bad.sum())} positions in all); drop such samples or mask the tokens"
        )


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


def entropy_terms(inputs: Inputs, entropy_bonus: float) -> Float[Tensor, "batch time"]:
    """Return −c·H of each counted token, to be added to the terms of a loss; differentiable in the entropy.

    Raises:
        ValueError: the entropy was not given.
    """
    if inputs.entropy is None:
        raise ValueError(
            f"entropy is None, and entropy_bonus = {entropy_bonus:g} takes it into the loss; pass the entropy of the "
            "policy at each position, or set entropy_bonus = 0"
        )
    return torch.where(inputs.mask, -entropy_bonus * inputs.entropy, 0.0)


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
    def needs_entropy(self) -> bool:
        """Whether the entropy is read; then a row whose advantage is 0 has a gradient too."""
        ...

    @property
    def needs_minibatch(self) -> bool:
        """True: `prepare` must see the whole minibatch first, and its results be used in place of this."""
        ...

    def normalizer(self, mask: Bool[Tensor, "batch time"], /) -> float:
        """Return the denominator of the loss over a whole batch, to hand to each of its micro-batches."""
        ...

    def prepare(self, inputs: Inputs, /) -> "tuple[Loss, Inputs]":
        """Return the loss that knows this minibatch, and the inputs to call it with, whole or in micro-batches.

        Without gradient. `inputs.log_pi` is that of the whole minibatch under the present policy.
        """
        ...

    def __call__(self, inputs: Inputs, /) -> ObjectiveOutput:
        """Return loss, terms and metrics."""
        ...


L = TypeVar("L")


def takes_tensors(call: Callable[[L, Inputs], ObjectiveOutput]) -> Callable[Concatenate[L, ...], ObjectiveOutput]:
    """Let a loss also be called with the fields of `Inputs`: `loss(log_pi, log_mu, log_ref, advantages, mask)`."""

    @functools.wraps(call)
    def call_with_inputs(loss: L, first: Inputs | Tensor, /, *others: Any, **named: Any) -> ObjectiveOutput:
        return call(loss, first if isinstance(first, Inputs) else Inputs(first, *others, **named))

    return call_with_inputs
