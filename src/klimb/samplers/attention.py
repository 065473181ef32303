"""Attention over cached keys with grouped queries, for decoding on a CPU.

Several query heads share one key-value head. transformers' `eager` attention copies the cached keys and values once per
query head at every token; torch's fused kernel does not, but handles one query at a time. Here the query heads of a
group are the rows of one matrix product. Per layer and token, at 128 rows, 9 heads in 3 groups and 48 (100) cached
tokens in bfloat16, one thread took 3.8 (17.9) ms eager, 1.3 (3.0) ms fused, and 0.5 (1.3) ms here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

GROUPED_QUERY_ATTENTION = "klimb_grouped_query"


CHANGES_THE_FORMULA = ("softcap", "s_aux", "sinks", "position_bias", "indices")
"""Arguments of transformers' attention functions with which attention is not the formula below."""


PROBE_TOKENS = 12


TOLERANCE = 1e-3
"""Largest difference in logits, relative to the largest logit, that rounding in float32 may leave."""


class UnsupportedAttentionError(ValueError):
    """The model asks for something that `grouped_query_attention` does not compute."""


def grouped_query_attention(
    module: nn.Module,
    query: Float[Tensor, "batch heads time head_dim"],
    key: Float[Tensor, "batch groups length head_dim"],
    value: Float[Tensor, "batch groups length value_dim"],
    attention_mask: Float[Tensor, "batch 1 time length"] | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Float[Tensor, "batch time heads value_dim"], None]:
    """softmax(query·keyᵀ·scaling + mask)·value, with the rounding of `eager`: softmax in float32, products as given.

    It has the signature that transformers calls its attention functions with.

    Raises:
        UnsupportedAttentionError: an argument that changes the formula was given, or dropout, or no mask.
    """
    given = [name for name in CHANGES_THE_FORMULA if kwargs.get(name) is not None]
    if given or dropout or attention_mask is None:
        raise UnsupportedAttentionError(
            f"cannot handle {given}, dropout {dropout}, {'no mask' if attention_mask is None else 'a mask'}"
        )
    batch, heads, time, head_dim = query.shape
    groups, length = key.shape[1:3]
    grouped = query.reshape(batch, groups, -1, head_dim)
    # Keys on the left: the product then reads the cache along its rows, which took half the time of the other order.
    scores = torch.matmul(key, grouped.transpose(2, 3)).transpose(2, 3)
    scores = scores * (head_dim**-0.5 if scaling is None else scaling)
    scores = scores.reshape(batch, groups, heads // groups, time, length) + attention_mask[:, :, None]
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    output = torch.matmul(weights.view(batch, groups, -1, length), value)
    return output.reshape(batch, heads, time, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED_QUERY_ATTENTION, grouped_query_attention)


AttentionMaskInterface.register(GROUPED_QUERY_ATTENTION, eager_mask)


@contextmanager
def attention_by(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Return the model computes attention by the implementation of this name for the duration."""
    before = _implementation(model)
    if before == name:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def decoding_attention(model: PreTrainedModel, device: torch.device) -> str:
    """Name of the attention to decode with: grouped queries for `eager` on a CPU if they give its logits, else its own.

    Only `eager` is replaced, because grouped queries round as it does: in bfloat16 the sampler's log-probabilities then
    stay those of the trainer. Beside a trainer with the fused kernel they would be one more way to round.

    They are tried on a few tokens in float32, with a padded row, as names of fields cannot tell what an architecture
    adds to attention.
    """
    own = _implementation(model)
    if device.type != "cpu" or own != "eager":
        return own
    num_vocab = model.config.get_text_config().vocab_size
    token_ids = torch.arange(2 * PROBE_TOKENS).view(2, PROBE_TOKENS) * 31 % num_vocab
    attention_mask = torch.ones_like(token_ids)
    attention_mask[1, : PROBE_TOKENS // 3] = 0
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    def logits() -> Tensor:
        with torch.autocast("cpu", enabled=False):
            output = model(
                input_ids=token_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
            )
        return output.logits[attention_mask.bool()]

    expected = logits()
    try:
        with attention_by(model, GROUPED_QUERY_ATTENTION):
            found = logits()
    except UnsupportedAttentionError:
        return own
    agrees = (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return GROUPED_QUERY_ATTENTION if agrees else own


def _implementation(model: PreTrainedModel) -> str:
    return model.config._attn_implementation or "eager"
