"""Hidden states that predict each response token; a prompt shared by several responses goes through the model once."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

from klimb.policies.positions import find_max_positions


@dataclass(frozen=True)
class _PaddedPrompts:
    """Prompts padded on the left, so that each response follows its prompt without a gap."""

    ids: Int[Tensor, "prompts longest"]
    attended: Int[Tensor, "prompts longest"]
    positions: Int[Tensor, "prompts longest"]
    lengths: Int[Tensor, " prompts"]


def predicting_hidden(
    decoder: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    prompt_index: Int[Tensor, " batch"],
    response_ids: Int[Tensor, "batch time"],
    *,
    share_prompts: bool,
) -> Float[Tensor, "batch time hidden"]:
    """Return final hidden states from which each response token is predicted.

    Position 0 is the hidden state of the prompt's last token, position t that of response token t - 1; the last
    response token is never an input. With `share_prompts` the prompts are one forward pass with a key-value cache
    and the responses a second one that continues each from its prompt's cache. The gradient flows through the
    cache, so values and gradients are those of separate full rows.

    Args:
        decoder: the model without its output layer.
        prompts: token ids of each prompt, none empty.
        prompt_index: row -> prompt.
        response_ids: token ids, padded on the right with any valid id.
        share_prompts: False runs each prompt again for each of its responses, for models whose state is no
            key-value cache.
    """
    used, row_prompt = torch.unique(prompt_index, return_inverse=True)
    padded = _pad_left([prompts[i] for i in used.tolist()], response_ids.device)
    if share_prompts:
        return _hidden_with_shared_prompts(decoder, padded, row_prompt, response_ids)
    return _hidden_of_full_rows(decoder, padded, row_prompt, response_ids)


def decoder_of(causal_lm: PreTrainedModel) -> PreTrainedModel:
    """Return the model below the head. Some architectures (Llama 4) say that it is the whole model."""
    decoder = causal_lm.get_decoder()
    return cast(PreTrainedModel, causal_lm.model) if decoder is causal_lm else decoder


def can_share_prompts(decoder: PreTrainedModel) -> bool:
    """Tell whether every layer's state is a key-value cache that grows by concatenation: autograd can follow that.

    RWKV has a state of its own and takes none, whatever its configuration says.
    """
    if "past_key_values" not in signature(decoder.forward).parameters:
        return False
    layers = DynamicCache(config=decoder.config).layers
    return all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers
    )


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> _PaddedPrompts:
    lengths = torch.tensor([len(p) for p in prompts])
    longest = int(lengths.max())
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    offsets = torch.arange(longest)[None] - (longest - lengths)[:, None]
    return _PaddedPrompts(
        ids.to(device), (offsets >= 0).long().to(device), offsets.clamp(min=0).to(device), lengths.to(device)
    )


def _hidden_with_shared_prompts(
    decoder: PreTrainedModel, prompts: _PaddedPrompts, row_prompt: Tensor, response_ids: Tensor
) -> Tensor:
    cache = DynamicCache(config=decoder.config)
    prompt_hidden = decoder(
        input_ids=prompts.ids,
        attention_mask=prompts.attended,
        position_ids=prompts.positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    first = prompt_hidden[:, -1:].index_select(0, row_prompt)
    if response_ids.shape[1] == 1:
        return first
    for layer in cache.layers:
        _select_rows(cast(DynamicLayer, layer), row_prompt)
    inputs = response_ids[:, :-1]
    # Padding after a response is attended only by what comes after it, which is never scored.
    attended = torch.cat([prompts.attended[row_prompt], torch.ones_like(inputs)], dim=1)
    positions = prompts.lengths[row_prompt][:, None] + torch.arange(inputs.shape[1], device=inputs.device)
    if (most := find_max_positions(decoder.config)) is not None:
        # No row goes beyond, but its padding may: there some rotary embeddings take other angles for all rows.
        positions = positions.clamp(max=most - 1)
    rest = decoder(
        input_ids=inputs,
        attention_mask=attended,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return torch.cat([first, rest], dim=1)


def _select_rows(layer: DynamicLayer, rows: Tensor) -> None:
    """`layer.batch_select_indices`, with a gradient that is one and the same every time."""
    if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
        layer.batch_select_indices(rows)
        return
    assert layer.keys is not None and layer.values is not None
    # That indexes, and threads add the gradients of rows that are named several times in any order.
    layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)


def _hidden_of_full_rows(
    decoder: PreTrainedModel, prompts: _PaddedPrompts, row_prompt: Tensor, response_ids: Tensor
) -> Tensor:
    """Each row is its prompt and its response, padded on the right: causal models never look there, so no mask."""
    num_time, longest = response_ids.shape[1], prompts.ids.shape[1]
    lengths = prompts.lengths[row_prompt]
    joined = torch.cat([prompts.ids[row_prompt], response_ids[:, :-1]], dim=1)
    # Left padding moves to the right end: row i is rolled by its number of padded positions.
    columns = torch.arange(joined.shape[1], device=joined.device)[None] + (longest - lengths)[:, None]
    rows = joined.gather(1, columns % joined.shape[1])
    hidden = decoder(input_ids=rows, use_cache=False).last_hidden_state
    wanted = (lengths - 1)[:, None] + torch.arange(num_time, device=joined.device)[None]
    return hidden.gather(1, wanted[..., None].expand(-1, -1, hidden.shape[-1]))
