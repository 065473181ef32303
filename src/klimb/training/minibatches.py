"""Which rows of a batch go through the optimizer together, and which through the model together."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch

from klimb.experience import Batch
from klimb.policies import Policy

MicroBatchTokens = int | Literal["auto"]
"""Tokens that go through the model at once; `auto` is `tokens_at_once` of the device."""

CPU_TOKENS, CPU_TOKENS_PER_THREAD, GPU_TOKENS = 1024, 256, 8192
"""What `auto` is. On two cores 1,104 tokens at once train as fast as 4,416, with a quarter of the activations
(docs/performance.md)."""


def tokens_at_once(setting: MicroBatchTokens, device: torch.device) -> int:
    """The setting; `auto` is about the fewest tokens that keep the device busy."""
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
    """The `micro_batches` of these rows that suit the policy and its device."""
    at_once = tokens_at_once(max_tokens, policy.device)
    return micro_batches(batch, rows, max_tokens=at_once, padded=not policy.packs_rows)


def micro_batches(batch: Batch, rows: Sequence[int], *, max_tokens: int, padded: bool = True) -> list[list[int]]:
    """Rows in portions of at most `max_tokens`, a single row always being allowed.

    A portion costs each of its prompts once and each of its responses. Responses to one prompt stay together, so that
    the prompt goes through the model once; prompts with responses of like length are neighbours, so that little is
    padding.

    Args:
        batch: all rows.
        rows: those to divide.
        max_tokens: of a portion.
        padded: count prompts and responses as long as the longest of their kind in the portion, for a model that pads
            them; False counts the tokens that there are, for one that does not (`Policy.packs_rows`).
    """
    lengths = batch.mask.sum(dim=1).tolist()
    prompt_of = batch.prompt_index.tolist()
    longest: dict[int, int] = {}
    for row in rows:
        longest[prompt_of[row]] = max(longest.get(prompt_of[row], 0), lengths[row])
    ordered = sorted(rows, key=lambda row: (longest[prompt_of[row]], prompt_of[row], lengths[row]))
    portions: list[list[int]] = []
    for row in ordered:
        joined = [*portions[-1], row] if portions else [row]
        prompts = [len(batch.prompts[number]) for number in {prompt_of[each] for each in joined}]
        responses = [lengths[each] for each in joined]
        if portions and sum(_counted(part, padded=padded) for part in (prompts, responses)) <= max_tokens:
            portions[-1] = joined
        else:
            portions.append([row])
    return portions


def _counted(lengths: Sequence[int], *, padded: bool) -> int:
    return max(lengths) * len(lengths) if padded else sum(lengths)
