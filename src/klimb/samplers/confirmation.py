"""Whether klimb's own decoder computes what a model computes: by structure, then by numbers."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klimb.samplers.architecture import LlamaWeights, UnknownArchitectureError, llama_weights
from klimb.samplers.decoder import LlamaDecoder
from klimb.samplers.decoding_mode import decoding_mode

LENGTHS = (12, 9)
NUM_STEPS = 3
"""Two sequences, of whose tokens the last are fed one at a time."""

TOLERANCE = 1e-3
"""Largest difference in logits, relative to the largest logit, that rounding in float32 may leave."""


@torch.no_grad()
def reason_against_own_decoder(model: PreTrainedModel, *, device: torch.device, compute_dtype: torch.dtype) -> str:
    """Why this model must be decoded by transformers; empty if klimb's own decoder gives its logits.

    Logits of a few tokens are compared in float32, after a pass over prompts of two lengths and after each of some
    single tokens, since names of modules cannot tell everything an architecture does.
    """
    if device.type != "cpu":
        return f"klimb's own decoder is for CPUs, the model is on {device}"
    attention = model.config._attn_implementation
    if compute_dtype != torch.float32 and attention != "eager":
        # Its log-probabilities would differ from the trainer's by more than the order of sums.
        return f"in {compute_dtype} klimb's own decoder rounds as eager attention does, the model has {attention!r}"
    try:
        weights = llama_weights(model)
        gap = _largest_gap(model, weights)
    except UnknownArchitectureError as error:
        return str(error)
    except RuntimeError as error:
        return f"klimb's own decoder fails on its shapes ({error})"
    return "" if gap <= TOLERANCE else f"klimb's own decoder differs from its logits by {gap:.2g} of the largest"


def _largest_gap(model: PreTrainedModel, weights: LlamaWeights) -> float:
    """Relative to the largest logit; nan if a logit is none."""
    num_vocab = len(weights.embedding)
    sequences = [[(7 + 31 * i + row) % num_vocab for i in range(length)] for row, length in enumerate(LENGTHS)]
    with decoding_mode(model, device=torch.device("cpu"), compute_dtype=torch.float32):
        expected = torch.stack([_expected(model, sequence) for sequence in sequences], dim=1)
        found = _found(weights, sequences)
    return float((found - expected).abs().max() / expected.abs().max())


def _expected(model: PreTrainedModel, sequence: list[int]) -> Tensor:
    """`[steps + 1, vocab]` from one pass over the whole sequence."""
    return model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -NUM_STEPS - 1 :]


def _found(weights: LlamaWeights, sequences: list[list[int]]) -> Tensor:
    """`[steps + 1, sequences, vocab]`."""
    decoder = LlamaDecoder(weights, compute_dtype=torch.float32, num_positions=max(LENGTHS))
    states = decoder.read_prompts([sequence[:-NUM_STEPS] for sequence in sequences])
    cache = decoder.empty_cache(len(sequences))
    cache.enter(torch.arange(len(sequences)), states, torch.arange(len(sequences)))
    found = [states.logits]
    for step in range(NUM_STEPS):
        token_ids = torch.tensor([sequence[step - NUM_STEPS] for sequence in sequences])
        found.append(decoder.step(token_ids, states.lengths + step, cache))
    return torch.stack(found)
