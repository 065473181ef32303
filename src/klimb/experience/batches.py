"""Samples side by side as right-padded tensors, ready for a policy and an objective."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from klimb.experience.samples import Sample
from klimb.experience.support import Support, collate_support

PAD_ID = 0
"""Fills `response_ids` behind a response. Any id would do: what counts is said by `mask`, never by a token id."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Responses as rows; position t of every tensor belongs to response token t.

    Attributes:
        samples: where each row comes from.
        prompts: token ids of each prompt that occurs, once.
        prompt_index: the prompt of each row.
        response_ids: token ids, padded on the right.
        mask: True where a row has a token that the policy drew. A response of one turn has no other; in a conversation
            the tokens that others put in are read, and nothing else is done with them.
        log_mu: log-probability in nats under the behaviour policy; 0 where the mask is False; NaN where a sample has
            none.
        log_ref: log-probability or log-mass under the reference; None when the samples were not scored under one.
        advantages: one number a row, or one a token.
        log_prox: log-probability under the policy as it was when the update of this batch began; None if no one asked.
        support: the tokens that could be drawn at each place, on which π, ref and prox are renormalised; None where no
            sample has recorded any.
    """

    samples: tuple[Sample, ...]
    prompts: tuple[tuple[int, ...], ...]
    prompt_index: Int[Tensor, " batch"]
    response_ids: Int[Tensor, "batch time"]
    mask: Bool[Tensor, "batch time"]
    log_mu: Float[Tensor, "batch time"]
    log_ref: Float[Tensor, "batch time"] | None
    advantages: Float[Tensor, "batch ..."]
    log_prox: Float[Tensor, "batch time"] | None = None
    support: Support | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_tokens(self) -> int:
        """Number of drawn tokens."""
        return int(self.mask.sum())

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Number of tokens of each row that are read: those up to its last drawn one."""
        return num_read(self.mask)

    @property
    def groups(self) -> Int[Tensor, " batch"]:
        """A number for each row; rows of one group share it."""
        numbers: dict[str, int] = {}
        return torch.tensor([numbers.setdefault(sample.group_id, len(numbers)) for sample in self.samples])

    def select(self, rows: Sequence[int]) -> "Batch":
        """Return these rows in this order, with unused prompts and padding columns left out.

        Raises:
            ValueError: no rows are given.
        """
        if len(rows) == 0:
            raise ValueError("select: no rows given; a batch has at least one")
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.mask.device)
        width = int(self.lengths[index].max())
        numbers = [int(self.prompt_index[row]) for row in rows]
        used = sorted(set(numbers))
        return Batch(
            samples=tuple(self.samples[row] for row in rows),
            prompts=tuple(self.prompts[number] for number in used),
            prompt_index=torch.tensor([used.index(number) for number in numbers], device=index.device),
            response_ids=self.response_ids[index, :width],
            mask=self.mask[index, :width],
            log_mu=self.log_mu[index, :width],
            log_ref=None if self.log_ref is None else self.log_ref[index, :width],
            advantages=self.advantages[index] if self.advantages.ndim == 1 else self.advantages[index, :width],
            log_prox=None if self.log_prox is None else self.log_prox[index, :width],
            support=None if self.support is None else self.support.select(index, width),
        )

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch with its tensors on `device`."""
        return replace(
            self,
            prompt_index=self.prompt_index.to(device),
            response_ids=self.response_ids.to(device),
            mask=self.mask.to(device),
            log_mu=self.log_mu.to(device),
            log_ref=None if self.log_ref is None else self.log_ref.to(device),
            advantages=self.advantages.to(device),
            log_prox=None if self.log_prox is None else self.log_prox.to(device),
            support=None if self.support is None else self.support.to(device),
        )


def collate(
    samples: Sequence[Sample],
    advantages: Float[Tensor, " batch"] | None = None,
    *,
    allow_absent_log_mu: bool = False,
    on_support: bool = True,
) -> Batch:
    """Put samples side by side, in their order.

    Args:
        samples: at least one, none with an empty response; either all have `log_ref` or none has.
        advantages: one number a sample; 0 for all where they are not known yet, or not read.
        allow_absent_log_mu: let samples without `log_mu` pass; their rows then hold NaN, which no ratio survives
            unnoticed. Only an objective that needs no ratio (maximum likelihood) may ask for it.
        on_support: take the support that samples have recorded, for what compares π with μ. False leaves it out: π is
            then itself, over all tokens.

    Raises:
        ValueError: naming the sample and what is wrong with it.
    """
    if advantages is not None and len(samples) != len(advantages):
        raise ValueError(f"collate: {len(samples)} samples for {len(advantages)} advantages; give one each")
    if not samples:
        raise ValueError("collate: no samples; a batch has at least one")
    for sample in samples:
        _check(sample, allow_absent_log_mu=allow_absent_log_mu)
    has_ref = {sample.log_ref is not None for sample in samples}
    if len(has_ref) == 2:
        missing = next(sample.sample_id for sample in samples if sample.log_ref is None)
        raise ValueError(f"collate: sample {missing} has no log_ref and others have; score all of them or none")
    numbers: dict[tuple[int, ...], int] = {}
    prompt_index = [numbers.setdefault(sample.prompt_ids, len(numbers)) for sample in samples]
    nan = float("nan")
    width = max(len(sample.response_ids) for sample in samples)
    return Batch(
        samples=tuple(samples),
        prompts=tuple(numbers),
        prompt_index=torch.tensor(prompt_index),
        response_ids=_pad([sample.response_ids for sample in samples], PAD_ID, torch.int64),
        mask=_pad([sample.is_drawn for sample in samples], False, torch.bool),
        log_mu=_pad(
            [
                place_scores(sample, (nan,) * sample.num_drawn if sample.log_mu is None else sample.log_mu)
                for sample in samples
            ],
            0.0,
            torch.float32,
        ),
        log_ref=_pad([place_scores(sample, sample.log_ref or ()) for sample in samples], 0.0, torch.float32)
        if True in has_ref
        else None,
        advantages=torch.zeros(len(samples)) if advantages is None else advantages.to(torch.float32),
        support=collate_support(samples, width) if on_support else None,
    )


def num_read(mask: Bool[Tensor, "batch time"]) -> Int[Tensor, " batch"]:
    """Return the number of response tokens of each row up to and including the last one that counts."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * places).amax(-1) if mask.shape[1] else mask.sum(-1)


def place_scores(sample: Sample, scores: Sequence[float]) -> Sequence[float]:
    """Return the scores of a sample's drawn tokens at the places of these in its response, 0 elsewhere."""
    if not sample.turns:
        return scores
    left = iter(scores)
    return [next(left) if drawn else 0.0 for drawn in sample.is_drawn]


def _pad(rows: Sequence[Sequence[int | float]], fill: int | float, dtype: torch.dtype) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)


def _check(sample: Sample, *, allow_absent_log_mu: bool) -> None:
    name = f"sample {sample.sample_id}"
    if not sample.num_drawn:
        raise ValueError(f"{name}: the response holds no token that was drawn; leave the sample out")
    if not sample.prompt_ids:
        raise ValueError(f"{name}: the prompt holds no token; render it with a template that begins with one")
    if sample.log_mu is None:
        if allow_absent_log_mu:
            return
        raise ValueError(
            f"{name}: log_mu is absent, so there is no ratio to its behaviour policy; record it while sampling, "
            "score it with the weights that drew it, or use behaviour cloning, which needs none"
        )
    for position, value in enumerate(sample.log_mu):
        if not (math.isfinite(value) and value <= LOG_MU_TOLERANCE):
            raise ValueError(
                f"{name}: log_mu[{position}] is {value}; a drawn token has a finite log-probability of at most 0"
            )


LOG_MU_TOLERANCE = 1e-4
"""A log-probability may exceed 0 by this much: rounding of a log-softmax in float32 over a large vocabulary."""
