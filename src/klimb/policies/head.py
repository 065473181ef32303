"""Log-probabilities and entropies of given tokens straight from hidden states, without the [tokens, vocabulary] logits.

One vocabulary tile of one block of tokens is alive at a time. The forward pass keeps the log-normaliser and the entropy
of each token, and as many tiles of logits as a fixed budget holds; the backward pass computes the others again.

The arithmetic of the log-probability head, one vocabulary tile of one block of tokens at a time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from klimb.experience.support import Support
from klimb.policies.gradients import gradient_at, place_for_gradient
from klimb.policies.restriction import Restriction
from klimb.policies.row_chunks import row_chunks


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How log-probabilities are computed; see `token_log_probs`."""

    temperature: float
    softcap: float | None
    with_entropy: bool
    compute_dtype: torch.dtype
    block_tokens: int
    tile_vocab: int
    kept_bytes: int


class TileLogits:
    """The logits z before softcap and temperature, in `compute_dtype`, and u after them, in `sum_dtype`."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, settings: HeadSettings):
        self.settings = settings
        self.sum_dtype = torch.promote_types(torch.float32, hidden.dtype)
        self.hidden = hidden.to(settings.compute_dtype)
        self.weight = weight
        self.bias = bias

    def blocks(self) -> list[slice]:
        """Of tokens."""
        return _slices(len(self.hidden), self.settings.block_tokens)

    def tiles(self) -> list[slice]:
        """Of the vocabulary."""
        return _slices(len(self.weight), self.settings.tile_vocab)

    def tile_weight(self, tile: slice) -> Tensor:
        """Rows of the weight for a tile, ready for products."""
        return self.weight[tile].to(self.settings.compute_dtype)

    def products(self, block: slice, tile_weight: Tensor) -> Tensor:
        """Hidden states times weight, without bias."""
        left, right = self.hidden[block], tile_weight.t()
        if left.is_cuda and left.dtype != self.sum_dtype:
            return torch.mm(left, right, out_dtype=self.sum_dtype)
        return left @ right

    def logits(self, products: Tensor, tile: slice, shift: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return new tensors: the logits u less `shift`, and (1 - tanh²) where there is a softcap."""
        settings, slope = self.settings, None
        if self.bias is None and settings.softcap is None:
            return self._scaled(products, shift), None
        u = products.to(self.sum_dtype, copy=True)
        if self.bias is not None:
            u += self.bias[tile]
        if settings.softcap is not None:
            bounded = u.div_(settings.softcap).tanh_()
            slope = 1 - bounded.square()
            u = bounded.mul_(settings.softcap)
        if settings.temperature != 1:
            u.div_(settings.temperature)
        return u if shift is None else u.sub_(shift[:, None]), slope

    def _scaled(self, products: Tensor, shift: Tensor | None) -> Tensor:
        """Return the products over the temperature, less `shift`; the division costs no pass of its own."""
        temperature = self.settings.temperature
        if shift is None:
            u = products.to(self.sum_dtype, copy=True)
            return u if temperature == 1 else u.div_(temperature)
        if temperature == 1:
            return torch.sub(products, shift[:, None])
        return torch.add(-shift[:, None], products, alpha=1 / temperature)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _place_of(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the tile, and the targets' columns there."""
    rows = ((targets >= tile.start) & (targets < tile.stop)).nonzero()[:, 0]
    return rows, targets[rows] - tile.start


@dataclass(frozen=True)
class HeadValues:
    """What the forward pass finds of each token and the backward pass reads.

    Attributes:
        lse: log-normaliser over the whole vocabulary.
        lse_kept: that over its support; None where no token is restricted.
        entropy: of the whole distribution; zeros where nobody asked.
        kept: products that were kept, in order.
    """

    lse: Tensor
    lse_kept: Tensor | None
    entropy: Tensor
    kept: list[Tensor]


def head_forward(head: TileLogits, targets: Tensor, restriction: Restriction | None) -> tuple[Tensor, HeadValues]:
    """Return log_pi of each token, and what the backward pass needs.

    Of each tile: peak m = max u, mass S = sum exp(u - m), moment A = sum exp(u - m)·(u - m). About the largest peak M,
    tile masses add up as exp(m - M)·S and moments as exp(m - M)·(A + (m - M)·S). Of all tiles, lse = M + log S and
    H = log S - A / S. The logits of a restricted token's own words are kept besides; log_pi is less their log Σ exp.
    """
    num_tiles = len(head.tiles())
    peak, mass, moment = (
        torch.zeros(len(targets), num_tiles, dtype=head.sum_dtype, device=targets.device) for _ in range(3)
    )
    chosen = torch.zeros(len(targets), dtype=head.sum_dtype, device=targets.device)
    num_own = 0 if restriction is None else len(restriction.words)
    own = torch.zeros(num_own, dtype=head.sum_dtype, device=targets.device)
    kept: list[Tensor] = []
    budget = head.settings.kept_bytes
    for number, tile in enumerate(head.tiles()):
        tile_weight = head.tile_weight(tile)
        for block in head.blocks():
            products = head.products(block, tile_weight)
            for rows in row_chunks(products):
                part = slice(block.start + rows.start, block.start + rows.stop)
                u, _ = head.logits(products[rows], tile)
                at, columns = _place_of(targets[part], tile)
                chosen[part].index_put_((at,), u[at, columns])
                if restriction is not None:
                    entries, at, columns = restriction.inside(part, tile)
                    own[entries] = u[at, columns]
                peak[part, number], mass[part, number], moment[part, number] = _moments(u, head.settings.with_entropy)
            budget -= products.nbytes
            if budget >= 0:
                kept.append(products)
    top = peak.amax(-1, keepdim=True)
    fall = peak - top
    shrink = fall.exp()
    total = (shrink * mass).sum(-1)
    lse = top[:, 0] + total.log()
    lse_kept = None if restriction is None else restriction.log_normaliser(own, lse)
    entropy = torch.zeros_like(lse)
    if head.settings.with_entropy:
        entropy = total.log() - (shrink * (moment + fall * mass)).sum(-1) / total
    return chosen - (lse if lse_kept is None else lse_kept), HeadValues(lse, lse_kept, entropy, kept)


def _moments(u: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor | float]:
    """Peak, mass and moment of each row; `u` is used up."""
    peak = u.amax(-1)
    u.sub_(peak[:, None])
    if not with_entropy:
        return peak, u.exp_().sum(-1), 0.0
    p = u.exp()
    return peak, p.sum(-1), u.mul_(p).sum(-1)


def head_backward(
    head: TileLogits,
    targets: Tensor,
    found: HeadValues,
    restriction: Restriction | None,
    grads: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
    *,
    place: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias; that of the weight is None if it was added in place."""
    # A softmax's dL/dz is dL/du / temperature, so the temperature goes into the incoming gradients.
    temperature, dtype, device = head.settings.temperature, head.sum_dtype, head.hidden.device
    grad_log_pi = torch.zeros_like(found.lse) if grads[0] is None else grads[0].to(dtype) / temperature
    grad_entropy = None if grads[1] is None else grads[1].to(dtype) / temperature
    slopes = _LogitGradients(targets, found, restriction, grad_log_pi, grad_entropy)
    grad_hidden = torch.zeros(head.hidden.shape, dtype=dtype, device=device) if needed[0] else None
    grad_weight = None
    if needed[1]:
        grad_weight = (
            torch.zeros(head.weight.shape, dtype=dtype, device=device) if place is None else gradient_at(place)
        )
    grad_bias = torch.zeros(len(head.weight), dtype=dtype, device=device) if needed[2] else None
    remaining = iter(found.kept)
    for tile in head.tiles():
        tile_weight = head.tile_weight(tile)
        for block in head.blocks():
            products = next(remaining, None)
            products = head.products(block, tile_weight) if products is None else products
            dz = slopes.of(head, products, block, tile, None if grad_bias is None else grad_bias[tile])
            if grad_hidden is not None:
                _add_product(grad_hidden[block], dz, tile_weight)
            if grad_weight is not None:
                _add_product(grad_weight[tile], dz.t(), head.hidden[block])
    return grad_hidden, grad_weight if place is None else None, grad_bias


@dataclass(frozen=True)
class _LogitGradients:
    """What dL/dz is made of: dL/du = g·(onehot(target) - p) - e·p·(log p + H), and du/dz.

    In the first term of a restricted token, p is softmax over its own words, and 0 at the others.
    """

    targets: Tensor
    found: HeadValues
    restriction: Restriction | None
    grad_log_pi: Tensor
    grad_entropy: Tensor | None

    def of(self, head: TileLogits, products: Tensor, block: slice, tile: slice, grad_bias: Tensor | None) -> Tensor:
        """dL/dz of one tile in the dtype of products; its sum over tokens is added to `grad_bias`."""
        dz = torch.empty(products.shape, dtype=head.settings.compute_dtype, device=products.device)
        for rows in row_chunks(products):
            part = slice(block.start + rows.start, block.start + rows.stop)
            log_p, slope = head.logits(products[rows], tile, self.found.lse[part])
            own = self._of_own_words(log_p, part, tile)
            du = self._of_rows(log_p, part)
            if own is not None:
                du.index_put_(own[0], own[1], accumulate=True)
            at, columns = _place_of(self.targets[part], tile)
            # Added before rounding to 16 bits: for a sure token, 1 - p must not come from two rounded products.
            du.index_put_((at, columns), self.grad_log_pi[part][at], accumulate=True)
            if slope is not None:
                du.mul_(slope)
            if grad_bias is not None:
                grad_bias += du.sum(0)
            dz[rows] = du
        return dz

    def _of_rows(self, log_p: Tensor, part: slice) -> Tensor:
        """Without the one-hot; `log_p` is used up."""
        g = self.grad_log_pi[part]
        if self.restriction is not None:
            g = g.masked_fill(self.restriction.is_restricted[part], 0)
        g = g[:, None]
        if self.grad_entropy is None:
            return log_p.exp_().mul_(-g)
        p, entropy = log_p.exp(), self.found.entropy[part][:, None]
        return log_p.add_(entropy).mul_(self.grad_entropy[part][:, None]).add_(g).mul_(p).neg_()

    def _of_own_words(self, log_p: Tensor, part: slice, tile: slice) -> tuple[tuple[Tensor, Tensor], Tensor] | None:
        """Return places in the tile of restricted tokens' own words, and -g·p there, p being over these alone."""
        if self.restriction is None or self.found.lse_kept is None:
            return None
        _, at, columns = self.restriction.inside(part, tile)
        rise = (self.found.lse - self.found.lse_kept)[part]
        return (at, columns), (log_p[at, columns] + rise[at]).exp_().mul_(-self.grad_log_pi[part][at])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total += torch.mm(left, right, out_dtype=total.dtype)
    else:
        total += left @ right


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
    support: Support | None = None,
    block_tokens: int | None = None,
    tile_vocab: int | None = None,
    kept_bytes: int = KEPT_LOGITS_BYTES,
) -> TokenLogProbs:
    """Log-probabilities of `targets` under softmax(u), and optionally the entropies of those distributions.

        z = hidden @ weight.T + bias
        u = softcap * tanh(z / softcap) / temperature     (without softcap, u = z / temperature)
        log_pi = u[target] - logsumexp(u);   entropy = -sum(p * log p),  p = softmax(u)

    Where a token has a recorded support S, log_pi = u[target] - logsumexp(u over S); the entropy stays that of p.

    Differentiable once in `hidden`, `weight` and `bias`, through both results; a weight that needs no gradient costs
    none. The products run in the autocast dtype if autocast is on, else in `hidden`'s dtype; results and sums over
    tiles are float32 (float64 for float64 inputs).

    Args:
        hidden: final hidden states, one row for each target.
        weight: output embedding; may be the (tied) input embedding.
        targets: token ids.
        bias: added to the logits.
        temperature: divides the logits.
        softcap: bound of the logits, as in Gemma 2.
        with_entropy: also return entropies.
        support: for each target the words that could be drawn; size 0 for all of them.
        block_tokens: tokens handled at once; the device's default if None.
        tile_vocab: vocabulary entries handled at once; the device's default if None.
        kept_bytes: of logits that may be kept for the backward pass, which computes the others once more.

    Raises:
        ValueError: shapes disagree, a target is outside the vocabulary, or temperature or softcap is not positive.
    """
    _check_inputs(hidden, weight, targets, temperature, softcap)
    settings = HeadSettings(
        temperature=temperature,
        softcap=softcap,
        with_entropy=with_entropy,
        compute_dtype=_compute_dtype(hidden),
        block_tokens=block_tokens or _default_block_tokens(hidden.device),
        tile_vocab=tile_vocab or _default_tile_vocab(hidden.device),
        kept_bytes=_bytes_to_keep(kept_bytes),
    )
    restriction = Restriction.of(support, targets, len(weight))
    log_pi, entropy = _TiledHead.apply(hidden, weight, bias, targets, restriction, settings)
    return TokenLogProbs(log_pi, entropy if with_entropy else None)


def _default_block_tokens(device: torch.device) -> int:
    return CPU_BLOCK_TOKENS if device.type == "cpu" else GPU_BLOCK_TOKENS


def _default_tile_vocab(device: torch.device) -> int:
    return CPU_TILE_VOCAB if device.type == "cpu" else GPU_TILE_VOCAB


def _bytes_to_keep(allowed: int) -> int:
    """Nothing is kept where no backward pass can come."""
    return allowed if torch.is_grad_enabled() else 0


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
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        restriction: Restriction | None,
        settings: HeadSettings,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            head = TileLogits(hidden, weight, bias, settings)
            log_pi, found = head_forward(head, targets, restriction)
        ctx.save_for_backward(hidden, weight, bias, targets, found.lse, found.lse_kept, found.entropy, *found.kept)
        ctx.settings, ctx.restriction = settings, restriction
        # Parts are added up in float32; a weight in 16 bits would round each sum.
        ctx.place = place_for_gradient(weight) if weight.dtype == head.sum_dtype else None
        # An entropy that is only looked at has no gradient, which is cheaper than one of zeros.
        ctx.set_materialize_grads(False)
        if not settings.with_entropy:
            ctx.mark_non_differentiable(found.entropy)
        return log_pi, found.entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, lse_kept, entropy, *kept = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            needed = ctx.needs_input_grad[:3]
            head = TileLogits(hidden, weight, bias, ctx.settings)
            found = HeadValues(lse, lse_kept, entropy, kept)
            out = head_backward(head, targets, found, ctx.restriction, grads, needed, place=ctx.place)
        return (*out, None, None, None)
