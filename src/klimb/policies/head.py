"""Log-probabilities and entropies of given tokens straight from hidden states, without the [tokens, vocabulary] logits.

One vocabulary tile of one block of tokens is alive at a time. The forward pass keeps only the log-normaliser and the
entropy of each token; the backward pass computes each tile of logits again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_BLOCK_TOKENS = 512
CPU_TILE_VOCAB = 2048
"""A 512 × 2048 tile (4 MiB in float32) stays in a core's cache; larger ones make the softmax passes memory-bound."""

GPU_BLOCK_TOKENS = 1024
GPU_TILE_VOCAB = 65536
"""256 MiB of float32 logits: few launches, and matrices large enough to fill the device."""


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-probability in nats of each target and, if asked, the entropy in nats of its distribution."""

    log_pi: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"] | None


@dataclass(frozen=True, kw_only=True)
class _HeadSettings:
    temperature: float
    softcap: float | None
    with_entropy: bool
    compute_dtype: torch.dtype
    block_tokens: int
    tile_vocab: int


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

    Raises:
        ValueError: shapes disagree, a target is outside the vocabulary, or temperature or softcap is not positive.
    """
    _check_inputs(hidden, weight, targets, temperature, softcap)
    on_cpu = hidden.device.type == "cpu"
    settings = _HeadSettings(
        temperature=temperature,
        softcap=softcap,
        with_entropy=with_entropy,
        compute_dtype=_compute_dtype(hidden),
        block_tokens=block_tokens or (CPU_BLOCK_TOKENS if on_cpu else GPU_BLOCK_TOKENS),
        tile_vocab=tile_vocab or (CPU_TILE_VOCAB if on_cpu else GPU_TILE_VOCAB),
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


class _TileLogits:
    """The logits u, one block of tokens and one vocabulary tile at a time."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, settings: _HeadSettings):
        self.settings = settings
        self.sum_dtype = torch.promote_types(torch.float32, hidden.dtype)
        self.hidden = hidden.to(settings.compute_dtype)
        self.weight = weight
        self.bias = bias

    def blocks(self) -> list[slice]:
        return _slices(len(self.hidden), self.settings.block_tokens)

    def tiles(self) -> list[slice]:
        return _slices(len(self.weight), self.settings.tile_vocab)

    def tile_weight(self, tile: slice) -> Tensor:
        return self.weight[tile].to(self.settings.compute_dtype)

    def logits(self, block: slice, tile: slice, tile_weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits u of the tile in `sum_dtype`, and du/dz where a softcap makes it differ from 1/temperature."""
        z = _product(self.hidden[block], tile_weight.t(), self.sum_dtype)
        if self.bias is not None:
            z += self.bias[tile]
        slope = None
        if self.settings.softcap is not None:
            bounded = z.div_(self.settings.softcap).tanh_()
            slope = (1 - bounded.square()).div_(self.settings.temperature)
            z = bounded.mul_(self.settings.softcap)
        if self.settings.temperature != 1:
            z.div_(self.settings.temperature)
        return z, slope


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """`left @ right` in `dtype`; a 16-bit product is not rounded back to 16 bits where the device can avoid it."""
    if left.dtype == dtype:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _place_of(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the tile, and the targets' columns there."""
    rows = ((targets >= tile.start) & (targets < tile.stop)).nonzero()[:, 0]
    return rows, targets[rows] - tile.start


class _TiledHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, settings: _HeadSettings
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            log_pi, lse, entropy = _forward(hidden, weight, bias, targets, settings)
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropy)
        ctx.settings = settings
        if not settings.with_entropy:
            ctx.mark_non_differentiable(entropy)
        return log_pi, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            needed = ctx.needs_input_grad[:3]
            out = _backward(_TileLogits(hidden, weight, bias, ctx.settings), targets, lse, entropy, grads, needed)
        return (*out, None, None)


def _forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, settings: _HeadSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """log_pi, log-normaliser and entropy by an online softmax over the vocabulary tiles.

    Running over tiles: peak m = max u, mass S = sum exp(u - m), moment A = sum exp(u - m) * (u - m).
    Then lse = m + log S and H = log S - A / S.
    """
    head = _TileLogits(hidden, weight, bias, settings)
    # Half of the smallest number instead of -inf: exp(lowest - m) is 0 as well, but (lowest - m) * 0 is not NaN.
    peak = torch.full_like(targets, torch.finfo(head.sum_dtype).min / 2, dtype=head.sum_dtype)
    mass, moment, chosen = torch.zeros_like(peak), torch.zeros_like(peak), torch.zeros_like(peak)
    for tile in head.tiles():
        tile_weight = head.tile_weight(tile)
        for block in head.blocks():
            u, _ = head.logits(block, tile, tile_weight)
            rows, columns = _place_of(targets[block], tile)
            chosen[block].index_put_((rows,), u[rows, columns])
            new_peak = torch.maximum(peak[block], u.amax(-1))
            fall = peak[block] - new_peak
            shrink = fall.exp()
            u.sub_(new_peak[:, None])
            if settings.with_entropy:
                p = u.exp()
                # The moment of what came before, about the new peak.
                moment[block] = shrink * (moment[block] + fall * mass[block]) + u.mul_(p).sum(-1)
            else:
                p = u.exp_()
            mass[block] = shrink * mass[block] + p.sum(-1)
            peak[block] = new_peak
    log_mass = mass.log()
    lse = peak + log_mass
    entropy = log_mass - moment / mass if settings.with_entropy else torch.zeros_like(lse)
    return chosen - lse, lse, entropy


def _backward(
    head: _TileLogits,
    targets: Tensor,
    lse: Tensor,
    entropy: Tensor,
    grads: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias; the tiles of dL/dz are formed again, one at a time."""
    settings, dtype = head.settings, head.sum_dtype
    grad_log_pi, grad_entropy = grads[0].to(dtype), grads[1].to(dtype) if settings.with_entropy else None
    grad_hidden = torch.zeros(head.hidden.shape, dtype=dtype, device=head.hidden.device) if needed[0] else None
    grad_weight = torch.zeros(head.weight.shape, dtype=dtype, device=head.hidden.device) if needed[1] else None
    grad_bias = torch.zeros(len(head.weight), dtype=dtype, device=head.hidden.device) if needed[2] else None
    for tile in head.tiles():
        tile_weight = head.tile_weight(tile)
        for block in head.blocks():
            u, slope = head.logits(block, tile, tile_weight)
            log_p = u.sub_(lse[block][:, None])
            if grad_entropy is None:
                dz = log_p.exp_().mul_(-grad_log_pi[block][:, None])
            else:
                p = log_p.exp()
                # -p * (g + e * (log p + H)): minus the part of the one-hot, which is added below.
                e = grad_entropy[block][:, None]
                dz = log_p.add_(entropy[block][:, None]).mul_(e).add_(grad_log_pi[block][:, None]).mul_(p).neg_()
            rows, columns = _place_of(targets[block], tile)
            # Added before rounding to 16 bits: for a sure token, 1 - p must not come from two rounded products.
            dz.index_put_((rows, columns), grad_log_pi[block][rows], accumulate=True)
            dz = dz.mul_(slope) if slope is not None else dz.div_(settings.temperature)
            if grad_bias is not None:
                grad_bias[tile] += dz.sum(0)
            dz = dz.to(settings.compute_dtype)
            if grad_hidden is not None:
                _add_product(grad_hidden[block], dz, tile_weight)
            if grad_weight is not None:
                _add_product(grad_weight[tile], dz.t(), head.hidden[block])
    return grad_hidden, grad_weight, grad_bias


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += _product(left, right, total.dtype)
