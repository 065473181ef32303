"""Log-probabilities and entropies of given tokens straight from hidden states, without the [tokens, vocabulary] logits.

One vocabulary tile of one block of tokens is alive at a time. The forward pass keeps the log-normaliser and the entropy
of each token, and as many tiles of logits as a fixed budget holds; the backward pass computes the others again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from klimb.policies.gradients import place_for_gradient
from klimb.policies.head_tiles import HeadSettings, TileLogits, head_backward, head_forward

CPU_BLOCK_TOKENS = 1024
CPU_TILE_VOCAB = 2048
"""4 MiB of bfloat16 logits: few, large matrix products, and what is made of them stays in the third-level cache."""

GPU_BLOCK_TOKENS = 1024
GPU_TILE_VOCAB = 65536
"""256 MiB of float32 logits: few launches, and matrices large enough to fill the device."""

KEPT_LOGITS_BYTES = 96 * 2**20
"""1024 tokens by 49152 words in bfloat16: all logits of a small pass, and less than the weight's gradient."""


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probability in nats of each target and, if asked, the entropy in nats of its distribution."""

    log_pi: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"] | None


def token_log_probs(
    hidden: Float[Tensor, "tokens hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: Int[Tensor, " tokens"],
    *,
    bias: Float[Tensor, " vocab"] | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    with_entropy: bool = False,
    block_tokens: int | None = None,
    tile_vocab: int | None = None,
    kept_bytes: int = KEPT_LOGITS_BYTES,
) -> TokenLogProbs:
    """Log-probabilities of `targets` under softmax(u), and optionally the entropies of those distributions.

        z = hidden @ weight.T + bias
        u = softcap * tanh(z / softcap) / temperature     (without softcap, u = z / temperature)
        log_pi = u[target] - logsumexp(u);   entropy = -sum(p * log p),  p = softmax(u)

    Differentiable once in `hidden`, `weight` and `bias`, through both results. With g and e the gradients of the
    loss in log_pi and entropy H, it is dL/du = g * (onehot(target) - p) - e * p * (log p + H). A weight that needs
    no gradient costs none. The products run in the autocast dtype if autocast is on, else in `hidden`'s dtype; the
    results are float32 (float64 for float64 inputs), and so are all sums over tiles.

    Args:
        hidden: final hidden states, one row for each target.
        weight: output embedding; may be the (tied) input embedding.
        targets: token ids.
        bias: added to the logits.
        temperature: divides the logits.
        softcap: bound of the logits, as in Gemma 2.
        with_entropy: also return entropies.
        block_tokens: tokens handled at once; the device's default if None.
        tile_vocab: vocabulary entries handled at once; the device's default if None.
        kept_bytes: of logits that may be kept for the backward pass, which computes the others once more.

    Raises:
        ValueError: shapes disagree, a target is outside the vocabulary, or temperature or softcap is not positive.
    """
    _check_inputs(hidden, weight, targets, temperature, softcap)
    on_cpu = hidden.device.type == "cpu"
    settings = HeadSettings(
        temperature=temperature,
        softcap=softcap,
        with_entropy=with_entropy,
        compute_dtype=_compute_dtype(hidden),
        block_tokens=block_tokens or (CPU_BLOCK_TOKENS if on_cpu else GPU_BLOCK_TOKENS),
        tile_vocab=tile_vocab or (CPU_TILE_VOCAB if on_cpu else GPU_TILE_VOCAB),
        # Nothing is kept where no backward pass can come.
        kept_bytes=kept_bytes if torch.is_grad_enabled() else 0,
    )
    log_pi, entropy = _TiledHead.apply(hidden, weight, bias, targets, settings)
    return TokenLogProbs(log_pi, entropy if with_entropy else None)


def _check_inputs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, softcap: float | None) -> None:
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden must be [tokens, hidden] and weight [vocab, hidden], got {list(hidden.shape)} and "
            f"{list(weight.shape)}"
        )
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets must have one id for each of {len(hidden)} tokens, got {list(targets.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; temperature 0 has no finite log-probabilities")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be > 0, got {softcap}; None means no softcap")
    if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < len(weight)):
        raise ValueError(
            f"targets must be in [0, {len(weight)}), got values from {int(targets.min())} to {int(targets.max())}"
        )


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


class _TiledHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, settings: HeadSettings
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            head = TileLogits(hidden, weight, bias, settings)
            log_pi, lse, entropy, kept = head_forward(head, targets)
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropy, *kept)
        ctx.settings = settings
        # Parts are added up in float32; a weight in 16 bits would round each sum.
        ctx.place = place_for_gradient(weight) if weight.dtype == head.sum_dtype else None
        # An entropy that is only looked at has no gradient, which is cheaper than one of zeros.
        ctx.set_materialize_grads(False)
        if not settings.with_entropy:
            ctx.mark_non_differentiable(entropy)
        return log_pi, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, entropy, *kept = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            needed = ctx.needs_input_grad[:3]
            head = TileLogits(hidden, weight, bias, ctx.settings)
            out = head_backward(head, targets, lse, entropy, kept, grads, needed, place=ctx.place)
        return (*out, None, None)
