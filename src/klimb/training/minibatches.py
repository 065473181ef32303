"""Which rows of a batch go through the optimizer together, and which through the model together.

A pass that runs out of memory is taken again over portions of half its tokens, and so are all that come after it.
Log-probabilities of samples under the present weights, without gradient.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from klimb.experience import Batch, Sample, collate
from klimb.policies import DoesNotFitError, Policy, free_memory, is_out_of_memory
from klimb.training.settings import MicroBatchTokens

CPU_TOKENS, CPU_TOKENS_PER_THREAD, GPU_TOKENS = 1024, 256, 8192
"""What `tokens_at_once` gives for `auto`. On two cores 1,104 tokens at once train as fast as 4,096, with a quarter of
the activations (docs/log.md)."""


LARGEST_GROUP = 4
"""Portions of `auto`; a larger group is torn apart. Where rows are padded, and layers not computed again when memory is
short (`Policy.packs_rows`), every group larger than a portion is."""


LONG_PROMPT = 1 / 8
"""Share of a portion above which a prompt is not computed twice to fill the portion before."""


def tokens_at_once(setting: MicroBatchTokens, device: torch.device) -> int:
    """Return the setting; `auto` is about the fewest tokens that keep the device busy."""
    if setting != "auto":
        return setting
    return max(CPU_TOKENS, CPU_TOKENS_PER_THREAD * torch.get_num_threads()) if device.type == "cpu" else GPU_TOKENS


def minibatches(batch: Batch, *, num_minibatches: int, generator: torch.Generator) -> list[list[int]]:
    """Rows of each optimiser step of one epoch: groups in random order, split evenly, never torn apart.

    There are at most as many as groups.
    """
    groups: dict[str, list[int]] = {}
    for row, sample in enumerate(batch.samples):
        groups.setdefault(sample.group_id, []).append(row)
    names = list(groups)
    order = [names[number] for number in torch.randperm(len(names), generator=generator).tolist()]
    count = min(num_minibatches, len(order))
    bounds = [len(order) * index // count for index in range(count + 1)]
    return [[row for name in order[low:high] for row in groups[name]] for low, high in itertools.pairwise(bounds)]


def micro_batches_for(
    policy: Policy, batch: Batch, rows: Sequence[int], *, max_tokens: MicroBatchTokens
) -> list[list[int]]:
    """Return the `micro_batches` of these rows that suit the policy, its device and what fits into its memory."""
    padded, at_once = not policy.packs_rows, tokens_at_once(max_tokens, policy.device)
    limit = policy.pass_limit.most_tokens
    if limit is not None:
        at_once = min(at_once, limit)
    if max_tokens == "auto":
        return _whole_groups(batch, rows, at_once=at_once, padded=padded, limit=limit)
    return micro_batches(batch, rows, max_tokens=at_once, padded=padded)


def _whole_groups(
    batch: Batch, rows: Sequence[int], *, at_once: int, padded: bool, limit: int | None
) -> list[list[int]]:
    most = at_once if padded or limit is not None else LARGEST_GROUP * at_once
    sizes, portions = _Sizes(batch, padded=padded), list[list[int]]()
    for family in sizes.families(rows):
        if sizes.of(family) > most:
            portions += micro_batches(batch, family, max_tokens=most, padded=padded)
            continue
        last = portions[-1] if portions else []
        # Joined if what is then too much is less than what is missing now.
        joined = sizes.of([*last, *family])
        if last and joined - at_once < at_once - sizes.of(last) and (limit is None or joined <= limit):
            portions[-1] = [*last, *family]
        else:
            portions.append(family)
    return portions


def micro_batches(batch: Batch, rows: Sequence[int], *, max_tokens: int, padded: bool = True) -> list[list[int]]:
    """Rows in portions of at most `max_tokens`, a single row always being allowed.

    A portion costs each of its prompts once and each of its responses. Responses to one prompt stay together, so that
    the prompt goes through the model once; those to a short prompt may be torn apart to fill a portion. Prompts with
    responses of like length are neighbours, so that little is padding.

    Args:
        batch: all rows.
        rows: those to divide.
        max_tokens: of a portion.
        padded: count prompts and responses as long as the longest of their kind in the portion, for a model that pads
            them; False counts the tokens that there are, for one that does not (`Policy.packs_rows`).
    """
    sizes = _Sizes(batch, padded=padded)
    portions: list[list[int]] = []
    for family in sizes.families(rows):
        is_long = len(batch.prompts[sizes.prompt_of[family[0]]]) > LONG_PROMPT * max_tokens
        begins = is_long and sizes.of(family) <= max_tokens < sizes.of([*(portions[-1] if portions else []), *family])
        for place, row in enumerate(family):
            joined = [*portions[-1], row] if portions else [row]
            if portions and not (begins and place == 0) and sizes.of(joined) <= max_tokens:
                portions[-1] = joined
            else:
                portions.append([row])
    return portions


class _Sizes:
    """Tokens that rows of a batch cost together."""

    def __init__(self, batch: Batch, *, padded: bool) -> None:
        self.prompt_of: list[int] = batch.prompt_index.tolist()
        self._prompt_lengths = [len(prompt) for prompt in batch.prompts]
        self._lengths: list[int] = batch.lengths.tolist()
        self._padded = padded

    def of(self, rows: Sequence[int]) -> int:
        """Each prompt once, and each response."""
        prompts = [self._prompt_lengths[number] for number in {self.prompt_of[row] for row in rows}]
        return self._counted(prompts) + self._counted([self._lengths[row] for row in rows])

    def families(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows of one prompt together, the shortest first; families by their longest response."""
        members: dict[int, list[int]] = {}
        for row in sorted(rows, key=lambda row: self._lengths[row]):
            members.setdefault(self.prompt_of[row], []).append(row)
        return sorted(members.values(), key=lambda family: (self._lengths[family[-1]], self.prompt_of[family[0]]))

    def _counted(self, lengths: Sequence[int]) -> int:
        return max(lengths) * len(lengths) if self._padded else sum(lengths)


logger = logging.getLogger(__name__)


Result = TypeVar("Result")


def try_pass(policy: Policy, batch: Batch, rows: Sequence[int], work: Callable[[], Result]) -> Result | None:
    """Return what `work`, one pass over these rows, gives; None if it ran out of memory.

    Then passes have half as many tokens from now on, for the rest of the run, and memory is free for another try.

    Raises:
        DoesNotFitError: it was a single row.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
    # Not inside of `except`: until there the traceback holds all that the pass had made.
    free_memory()
    _halve(policy, batch, rows, reason)
    return None


def _halve(policy: Policy, batch: Batch, rows: Sequence[int], reason: str) -> None:
    limit, num_tokens = policy.pass_limit, _Sizes(batch, padded=not policy.packs_rows).of(rows)
    limit.num_out_of_memory += 1
    if len(rows) == 1:
        raise DoesNotFitError(
            f"one response with its prompt, {num_tokens} tokens, does not fit into memory ({reason}). Lower "
            "sampling.max_new_tokens, set model.activation_checkpointing = 'always' or model.lora.rank, take a smaller "
            "model, or free memory of the device"
        )
    limit.most_tokens = max(1, num_tokens // 2)
    logger.warning(
        "a pass of %d tokens ran out of memory (%s); from now on passes have at most %d, with the same gradient. "
        "training.micro_batch_tokens = %d avoids the attempt",
        num_tokens,
        reason,
        limit.most_tokens,
        limit.most_tokens,
    )


def for_each_portion(
    policy: Policy,
    batch: Batch,
    *,
    max_tokens: MicroBatchTokens,
    work: Callable[[Sequence[int]], None],
) -> None:
    """Call `work` on portions of all rows; where one does not fit, on smaller ones of those that are left."""
    left = list(range(len(batch)))
    while left:
        for rows in micro_batches_for(policy, batch, left, max_tokens=max_tokens):
            if not try_pass(policy, batch, rows, partial(_complete, work, rows)):
                break
            done = set(rows)
            left = [row for row in left if row not in done]


def _complete(work: Callable[[Sequence[int]], None], rows: Sequence[int]) -> bool:
    work(rows)
    return True


@torch.no_grad()
def score_batch(policy: Policy, batch: Batch, *, max_tokens: MicroBatchTokens) -> Float[Tensor, "batch time"]:
    """Return the log π of the batch's tokens under the present weights, without gradient, on the batch's own shape.

    Where the batch has a support, π is renormalised on it.
    """
    log_pi = torch.zeros(batch.mask.shape)

    def score(rows: Sequence[int]) -> None:
        part = batch.select(rows).to(policy.device)
        scored = policy.log_probs(part.prompts, part.prompt_index, part.response_ids, part.mask, support=part.support)
        log_pi[list(rows), : part.mask.shape[1]] = scored.log_pi.float().cpu()

    for_each_portion(policy, batch, max_tokens=max_tokens, work=score)
    return log_pi


@torch.no_grad()
def score_samples(
    policy: Policy, samples: Sequence[Sample], *, max_tokens: MicroBatchTokens, on_support: bool = True
) -> list[tuple[float, ...]]:
    """Return the log-probability in nats of each drawn token under the policy, at its temperature; one tuple a sample.

    Args:
        policy: who scores.
        samples: with token ids.
        max_tokens: that go through the model at once.
        on_support: renormalise on the support that a sample has recorded, to compare with its log_mu; False takes the
            policy itself, over all tokens.
    """
    batch = collate(samples, allow_absent_log_mu=True, on_support=on_support)
    scored: dict[int, tuple[float, ...]] = {}

    def score(rows: Sequence[int]) -> None:
        part = batch.select(rows).to(policy.device)
        scores = policy.log_probs(part.prompts, part.prompt_index, part.response_ids, part.mask, support=part.support)
        log_pi = scores.log_pi.tolist()
        for row, values in zip(rows, log_pi, strict=True):
            drawn = samples[row].is_drawn
            scored[row] = tuple(value for value, is_drawn in zip(values, drawn, strict=False) if is_drawn)

    for_each_portion(policy, batch, max_tokens=max_tokens, work=score)
    return [scored[row] for row in range(len(samples))]
