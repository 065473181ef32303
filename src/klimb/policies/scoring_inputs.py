"""What may be scored: prompts, responses and masks that fit each other and the model."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_scoring_inputs(
    prompts: Sequence[Sequence[int]],
    prompt_index: Tensor,
    response_ids: Tensor,
    mask: Tensor,
    *,
    num_vocab: int,
    max_positions: int | None,
) -> None:
    """Returns if every row can be scored.

    Args:
        prompts: token ids of each prompt.
        prompt_index: row -> prompt.
        response_ids: `[batch, time]`.
        mask: `[batch, time]`, True where a token counts.
        num_vocab: token ids must be below it.
        max_positions: prompt and response together must not be longer; None if the model has no such bound.

    Raises:
        ValueError: shapes that disagree, an empty prompt, a token outside the vocabulary, a row that is too long.
    """
    _check_shapes(prompt_index, response_ids, mask)
    if not len(response_ids):
        raise ValueError("there are no rows to score")
    first, last = int(prompt_index.min()), int(prompt_index.max())
    if first < 0 or last >= len(prompts):
        raise ValueError(f"prompt_index goes from {first} to {last}, but there are {len(prompts)} prompts")
    used = set(prompt_index.tolist())
    for index in sorted(used):
        _check_prompt(index, prompts[index], num_vocab)
    _check_vocabulary(response_ids, mask, num_vocab)
    lengths = torch.tensor([len(prompt) for prompt in prompts])[prompt_index.cpu()] + num_scored(mask).cpu()
    if max_positions is not None and int(lengths.max()) > max_positions:
        row = int(lengths.argmax())
        raise ValueError(
            f"row {row} has {int(lengths[row])} tokens (prompt and response), but the model has only {max_positions} "
            "positions; shorten the prompt or the response"
        )


def num_scored(mask: Tensor) -> Tensor:
    """Number of response tokens of each row up to and including the last one that counts."""
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask * places).amax(-1) if mask.shape[1] else mask.sum(-1)


def _check_shapes(prompt_index: Tensor, response_ids: Tensor, mask: Tensor) -> None:
    if response_ids.ndim != 2 or mask.shape != response_ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            "response_ids and mask must both be [batch, time] and mask bool, got response_ids "
            f"{list(response_ids.shape)} and mask {list(mask.shape)} of {mask.dtype}"
        )
    if prompt_index.shape != response_ids.shape[:1]:
        raise ValueError(
            f"prompt_index must have one entry for each of {len(response_ids)} rows, got {list(prompt_index.shape)}"
        )


def _check_prompt(index: int, prompt: Sequence[int], num_vocab: int) -> None:
    if not len(prompt):
        raise ValueError(f"prompt {index} is empty; the first response token needs at least one token before it")
    if min(prompt) < 0 or max(prompt) >= num_vocab:
        raise ValueError(
            f"prompt {index} has token ids from {min(prompt)} to {max(prompt)}, but the model's vocabulary is 0 to "
            f"{num_vocab - 1}; was it encoded with another tokenizer?"
        )


def _check_vocabulary(response_ids: Tensor, mask: Tensor, num_vocab: int) -> None:
    is_read = torch.arange(mask.shape[1], device=mask.device) < num_scored(mask)[:, None]
    is_wrong = is_read & ((response_ids < 0) | (response_ids >= num_vocab)).to(mask.device)
    if bool(is_wrong.any()):
        row, time = is_wrong.nonzero()[0].tolist()
        raise ValueError(
            f"response {row} has token id {int(response_ids[row, time])} at position {time}, but the model's "
            f"vocabulary is 0 to {num_vocab - 1}; was it encoded with another tokenizer?"
        )
