"""The arithmetic of the log-probability head, one vocabulary tile of one block of tokens at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from klimb.policies.gradients import gradient_at
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
        """New tensors: the logits u less `shift`, and (1 - tanh²) where there is a softcap."""
        settings, slope = self.settings, None
        if self.bias is None and settings.softcap is None and settings.temperature == 1 and shift is not None:
            return torch.sub(products, shift[:, None]), None
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


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _place_of(targets: Tensor, tile: slice) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the tile, and the targets' columns there."""
    rows = ((targets >= tile.start) & (targets < tile.stop)).nonzero()[:, 0]
    return rows, targets[rows] - tile.start


def head_forward(head: TileLogits, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """log_pi, log-normaliser and entropy of each token, and the products that were kept, in order.

    Of each tile: peak m = max u, mass S = sum exp(u - m), moment A = sum exp(u - m)·(u - m). About the largest peak M,
    tile masses add up as exp(m - M)·S and moments as exp(m - M)·(A + (m - M)·S). Of all tiles, lse = M + log S and
    H = log S - A / S.
    """
    num_tiles = len(head.tiles())
    peak, mass, moment = (
        torch.zeros(len(targets), num_tiles, dtype=head.sum_dtype, device=targets.device) for _ in range(3)
    )
    chosen = torch.zeros(len(targets), dtype=head.sum_dtype, device=targets.device)
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
                peak[part, number], mass[part, number], moment[part, number] = _moments(u, head.settings.with_entropy)
            budget -= products.nbytes
            if budget >= 0:
                kept.append(products)
    top = peak.amax(-1, keepdim=True)
    fall = peak - top
    shrink = fall.exp()
    total = (shrink * mass).sum(-1)
    lse = top[:, 0] + total.log()
    if not head.settings.with_entropy:
        return chosen - lse, lse, torch.zeros_like(lse), kept
    return chosen - lse, lse, total.log() - (shrink * (moment + fall * mass)).sum(-1) / total, kept


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
    lse: Tensor,
    entropy: Tensor,
    kept: Sequence[Tensor],
    grads: tuple[Tensor | None, ...],
    needed: tuple[bool, ...],
    *,
    place: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden, weight and bias; that of the weight is None if it was added in place."""
    # A softmax's dL/dz is dL/du / temperature, so the temperature goes into the incoming gradients.
    temperature, dtype, device = head.settings.temperature, head.sum_dtype, head.hidden.device
    grad_log_pi = torch.zeros_like(lse) if grads[0] is None else grads[0].to(dtype) / temperature
    grad_entropy = None if grads[1] is None else grads[1].to(dtype) / temperature
    slopes = _LogitGradients(targets, lse, entropy, grad_log_pi, grad_entropy)
    grad_hidden = torch.zeros(head.hidden.shape, dtype=dtype, device=device) if needed[0] else None
    grad_weight = None
    if needed[1]:
        grad_weight = (
            torch.zeros(head.weight.shape, dtype=dtype, device=device) if place is None else gradient_at(place)
        )
    grad_bias = torch.zeros(len(head.weight), dtype=dtype, device=device) if needed[2] else None
    remaining = iter(kept)
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
    """What dL/dz is made of: dL/du = g·(onehot(target) - p) - e·p·(log p + H), and du/dz."""

    targets: Tensor
    lse: Tensor
    entropy: Tensor
    grad_log_pi: Tensor
    grad_entropy: Tensor | None

    def of(self, head: TileLogits, products: Tensor, block: slice, tile: slice, grad_bias: Tensor | None) -> Tensor:
        """dL/dz of one tile in the dtype of products; its sum over tokens is added to `grad_bias`."""
        dz = torch.empty(products.shape, dtype=head.settings.compute_dtype, device=products.device)
        for rows in row_chunks(products):
            part = slice(block.start + rows.start, block.start + rows.stop)
            log_p, slope = head.logits(products[rows], tile, self.lse[part])
            du = self._of_rows(log_p, part)
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
        g = self.grad_log_pi[part][:, None]
        if self.grad_entropy is None:
            return log_p.exp_().mul_(-g)
        p = log_p.exp()
        return log_p.add_(self.entropy[part][:, None]).mul_(self.grad_entropy[part][:, None]).add_(g).mul_(p).neg_()


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda:
        total += torch.mm(left, right, out_dtype=total.dtype)
    else:
        total += left @ right
