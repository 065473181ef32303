"""Causal attention of packed prompts and responses; all responses to a prompt read the keys of that one prompt.

Rotary position embedding, as the Llama family has it: feature i turns with feature i + half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from klimb.policies.llama.rows import AttentionBlock
from klimb.policies.row_chunks import row_chunks


@dataclass(frozen=True)
class Rotation:
    """A rotation for each token, the same for all heads.

        out[i] = rows[i]·cos[i] + rows[(i + half) mod features]·signed_sin[i]

    Attributes:
        cos: of the angles.
        signed_sin: -sin in the first half of the features and sin in the second.

    Source: Su et al. 2021, arXiv 2104.09864.
    """

    cos: Float[Tensor, "tokens 1 features"]
    signed_sin: Float[Tensor, "tokens 1 features"]

    @classmethod
    def of(cls, cos: Float[Tensor, "tokens features"], sin: Float[Tensor, "tokens features"]) -> "Rotation":
        """Of a token's angles, whose second half of the columns is equal to the first, as transformers gives them."""
        low, high = sin.chunk(2, dim=-1)
        return cls(cos[:, None], torch.cat([-low, high], dim=-1)[:, None])

    def back(self) -> "Rotation":
        """Return what takes the gradient of the result to the gradient of the rows."""
        return Rotation(self.cos, -self.signed_sin)

    def __call__(
        self, rows: Float[Tensor, "tokens heads features"], *, out: Float[Tensor, "tokens heads features"]
    ) -> None:
        """Write the rotated rows to `out`, which may be `rows`: computed in the dtype of the angles, rounded once."""
        half = rows.shape[-1] // 2
        for part in row_chunks(rows):
            straight = rows[part].to(self.cos.dtype, copy=True)
            crossed = torch.empty_like(straight)
            crossed[..., :half], crossed[..., half:] = straight[..., half:], straight[..., :half]
            # Not addcmul_, which rounds once where transformers rounds twice: log-probs in bfloat16 would differ.
            torch.add(straight.mul_(self.cos[part]), crossed.mul_(self.signed_sin[part]), out=out[part])


QUERY_CHUNK = 128
"""Positions of a prompt that are queries at once: they need no keys behind them, which saves most of the upper half."""


EXACT_FRACTION = 0.5
"""What `math.frexp` gives for a power of 2."""


@dataclass(frozen=True)
class HeadShape:
    """How the features of queries, keys and values are divided.

    Attributes:
        num_heads: of queries.
        num_key_heads: of keys and of values; each serves `num_heads / num_key_heads` query heads.
        head_dim: features of a head.
        scaling: factor on the products of queries and keys.
    """

    num_heads: int
    num_key_heads: int
    head_dim: int
    scaling: float

    @property
    def repeats(self) -> int:
        """Query heads of each key head."""
        return self.num_heads // self.num_key_heads

    @property
    def num_features(self) -> int:
        """Of queries, keys and values side by side."""
        return (self.num_heads + 2 * self.num_key_heads) * self.head_dim

    @property
    def widths(self) -> tuple[int, int, int]:
        """Features of query, key and value for each key head."""
        return self.repeats * self.head_dim, self.head_dim, self.head_dim


class SharedAttention:
    """What each token's heads read: softmax(scaling · q·k) v over the tokens before it and itself.

    A response token reads its prompt and its own response. Rotation is computed in the dtype of the angles, products
    in that of what comes in; the softmax is in float32 or wider and its probabilities are rounded to the dtype of the
    products. The forward pass rounds where transformers' eager attention does on a row without padding, and sums in its
    order. Made once for all layers of a pass.

    Args:
        blocks: of the packed tokens.
        cos: at each token's position, the second half of the columns equal to the first.
        sin: likewise.
        heads: how the columns are divided.
    """

    def __init__(
        self,
        blocks: Sequence[AttentionBlock],
        cos: Float[Tensor, "tokens head_dim"],
        sin: Float[Tensor, "tokens head_dim"],
        heads: HeadShape,
    ) -> None:
        self.heads = heads
        self.num_pairs = sum(block.num_pairs for block in blocks)
        self.rotation = Rotation.of(cos, sin)
        self.rotation_back = self.rotation.back()
        self.blocks = [_Block(block, heads, cos) for block in blocks]

    def __call__(self, projected: Float[Tensor, "tokens features"]) -> Float[Tensor, "tokens heads_times_head_dim"]:
        """Differentiable once; kept are rotated queries and keys, values and probabilities.

        Args:
            projected: queries, keys and values side by side, before rotation.
        """
        return _SharedAttention.apply(projected, self)

    def by_head(self, rows: Tensor) -> Tensor:
        """Return the queries and keys of `[tokens, features]` as `[tokens, heads, head_dim]`."""
        return rows.view(len(rows), -1, self.heads.head_dim)[:, : self.heads.num_heads + self.heads.num_key_heads]


class _SharedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, attention: SharedAttention) -> Tensor:
        heads = attention.heads
        rotated = projected.new_empty(len(projected), heads.num_heads + heads.num_key_heads, heads.head_dim)
        attention.rotation(attention.by_head(projected), out=rotated)
        out = projected.new_empty(len(projected), heads.num_heads * heads.head_dim)
        kept = [block.forward(rotated.flatten(1), projected, out) for block in attention.blocks]
        ctx.save_for_backward(*chain.from_iterable(kept))
        ctx.counts, ctx.attention = [len(tensors) for tensors in kept], attention
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None]:
        attention: SharedAttention = ctx.attention
        kept = list(ctx.saved_tensors)
        grad = grad_out.new_empty(len(grad_out), attention.heads.num_features)
        for block, count in zip(attention.blocks, ctx.counts, strict=True):
            tensors, kept = kept[:count], kept[count:]
            block.backward(tensors, grad_out, grad)
        turned = attention.by_head(grad)
        attention.rotation_back(turned, out=turned)
        return grad, None


class _Block:
    """Attention of one block; batched over prompts and key heads."""

    def __init__(self, block: AttentionBlock, heads: HeadShape, like: Tensor):
        self.block, self.heads = block, heads
        self.num_prompts, self.prompt_time, self.num_responses, self.time = block.shape
        self.batch = self.num_prompts * heads.num_key_heads
        size = min(QUERY_CHUNK, self.prompt_time)
        self.prompt_bias = _causal_bias(size, size, like)[:, None]
        self.response_bias = _causal_bias(self.time, self.prompt_time + self.time, like).repeat_interleave(
            heads.repeats, 0
        )

    def forward(self, rotated: Tensor, projected: Tensor, out: Tensor) -> list[Tensor]:
        """Write the block's tokens of `out`; returns what the gradient needs."""
        prompt = self._by_head(rotated, projected, is_prompt=True)
        attended, kept = self._prompt_forward(*prompt)
        self._write(out, [attended], is_prompt=True)
        if not self.time:
            return [*prompt, *kept]
        response = self._by_head(rotated, projected, is_prompt=False)
        attended, p = self._response_forward(response, prompt)
        self._write(out, [attended], is_prompt=False)
        return [*prompt, *response, p, *kept]

    def backward(self, kept: list[Tensor], grad_out: Tensor, grad: Tensor) -> None:
        """Write the block's tokens of `grad`, the gradient of the rotated queries, keys and values."""
        prompt, rest = kept[:3], kept[3:]
        wide = torch.promote_types(torch.float32, grad_out.dtype)
        # Both sums have several parts; in 16 bits each addition would round.
        grad_key, grad_value = (torch.zeros_like(each, dtype=wide) for each in prompt[1:])
        if self.time:
            response, p, rest = rest[:3], rest[3], rest[4:]
            grad_attended = self._gathered(grad_out, self.heads.widths[0], is_prompt=False)
            grads = self._response_backward(response, prompt, p, grad_attended, (grad_key, grad_value))
            self._write(grad, grads, is_prompt=False)
        grad_attended = self._gathered(grad_out, self.heads.widths[0], is_prompt=True)
        grad_query = self._prompt_backward(prompt, rest, grad_attended, (grad_key, grad_value))
        self._write(grad, [grad_query, grad_key, grad_value], is_prompt=True)

    def _prompt_forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, list[Tensor]]:
        out, kept = torch.empty_like(query), []
        for start, stop, rows in self._query_chunks():
            scores = torch.bmm(query[:, rows], key[:, :stop].transpose(1, 2))
            own = scores.view(self.batch, stop - start, -1, stop)[..., start:]
            own += self.prompt_bias[: stop - start, :, : stop - start]
            kept.append(self._probabilities(scores))
            torch.bmm(kept[-1], value[:, :stop], out=out[:, rows])
        return out, kept

    def _prompt_backward(
        self, prompt: list[Tensor], kept: list[Tensor], grad_out: Tensor, totals: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the gradient of the queries; those of keys and values are added to the totals."""
        query, key, value = prompt
        grad_query, (grad_key, grad_value) = torch.empty_like(query), totals
        for (_, stop, rows), p in zip(self._query_chunks(), kept, strict=True):
            grad_p = torch.bmm(grad_out[:, rows], value[:, :stop].transpose(1, 2))
            grad_scores = self._probabilities_backward(grad_p, p)
            torch.bmm(grad_scores, key[:, :stop], out=grad_query[:, rows])
            grad_key[:, :stop] += torch.bmm(grad_scores.transpose(1, 2), query[:, rows])
            grad_value[:, :stop] += torch.bmm(p.transpose(1, 2), grad_out[:, rows])
        return grad_query

    def _response_forward(self, response: list[Tensor], prompt: list[Tensor]) -> tuple[Tensor, Tensor]:
        query, key, value = response
        scores = torch.bmm(self._each(query), self._joined(prompt[1], key).transpose(1, 2))
        p = self._probabilities(scores, self.response_bias)
        return torch.bmm(p, self._joined(prompt[2], value)).view(query.shape), p

    def _response_backward(
        self, response: list[Tensor], prompt: list[Tensor], p: Tensor, grad_out: Tensor, totals: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Gradients of the response's queries, keys and values; those of the prompt's are added to the totals."""
        query, key, value = response
        each_grad_out = self._each(grad_out)
        grad_p = torch.bmm(each_grad_out, self._joined(prompt[2], value).transpose(1, 2))
        grad_scores = self._probabilities_backward(grad_p, p)
        grad_query = torch.bmm(grad_scores, self._joined(prompt[1], key)).view(query.shape)
        grad_keys = torch.bmm(grad_scores.transpose(1, 2), self._each(query))
        grad_values = torch.bmm(p.transpose(1, 2), each_grad_out)
        return [grad_query, *map(self._parted, (grad_keys, grad_values), totals)]

    def _probabilities(self, scores: Tensor, bias: Tensor | None = None) -> Tensor:
        """softmax(scaling · scores + bias) in float32 or wider, rounded to the dtype of `scores`, which are used up."""
        scale = self.heads.scaling
        # A power of 2 may be applied before or after rounding; another scale comes between two roundings.
        if math.frexp(scale)[0] != EXACT_FRACTION:
            scores, scale = scores.mul_(scale), 1.0
        p, dtype = torch.empty_like(scores), torch.promote_types(torch.float32, scores.dtype)
        for part in row_chunks(scores):
            if bias is None:
                wide = scores[part].to(dtype, copy=True).mul_(scale)
            else:
                wide = torch.add(bias, scores[part], alpha=scale)
            p[part] = torch.softmax(wide, -1, out=wide)
        return p

    def _probabilities_backward(self, grad: Tensor, p: Tensor) -> Tensor:
        """Return the gradient of the scores before their scale."""
        return torch.ops.aten._softmax_backward_data(grad, p, -1, p.dtype).mul_(self.heads.scaling)

    def _joined(self, prompt: Tensor, response: Tensor) -> Tensor:
        """Return what each response reads, `[batch * responses, positions, head_dim]`.

        One product over all of it, though this copies the prompt's part: two would be slower, and the sum of two
        products over values would be rounded twice.
        """
        prompts = prompt[:, None].expand(-1, self.num_responses, -1, -1)
        own = response.view(self.batch, self.num_responses, -1, response.shape[-1])
        return torch.cat([prompts, own], dim=2).flatten(0, 1)

    def _parted(self, grad: Tensor, total: Tensor) -> Tensor:
        """Return the way back of `_joined`: the prompt's part is added to the total, the response's returned."""
        by_response = grad.view(self.batch, self.num_responses, -1, self.heads.head_dim)
        prompt, own = by_response.split([self.prompt_time, self.time], dim=2)
        total += prompt.sum(1, dtype=total.dtype)
        return own.flatten(1, 2)

    def _query_chunks(self) -> list[tuple[int, int, slice]]:
        """First position, position behind the last, and rows (positions times repeats) of each chunk of queries."""
        starts = range(0, self.prompt_time, QUERY_CHUNK)
        bounds = [(start, min(start + QUERY_CHUNK, self.prompt_time)) for start in starts]
        repeats = self.heads.repeats
        return [(start, stop, slice(start * repeats, stop * repeats)) for start, stop in bounds]

    def _each(self, rows: Tensor) -> Tensor:
        """`[batch, responses * rows, columns]` as `[batch * responses, rows, columns]`."""
        return rows.view(self.batch * self.num_responses, -1, rows.shape[-1])

    def _by_head(self, rotated: Tensor, projected: Tensor, *, is_prompt: bool) -> list[Tensor]:
        """Rotated queries and keys, and values, of the block, each `[batch, rows, head_dim]`."""
        widths = self.heads.widths
        query, key = rotated.split([self.heads.num_key_heads * width for width in widths[:2]], dim=-1)
        value = projected[:, rotated.shape[-1] :]
        return [
            self._gathered(part, width, is_prompt=is_prompt)
            for part, width in zip((query, key, value), widths, strict=True)
        ]

    def _place(self, *, is_prompt: bool) -> tuple[slice, Tensor | None, tuple[int, ...]]:
        """Packed tokens, their slots, and the rectangle's sides."""
        block = self.block
        if is_prompt:
            return block.prompts, None, (self.num_prompts, 1, self.prompt_time)
        return block.responses, block.response_slots, (self.num_prompts, self.num_responses, self.time)

    def _gathered(self, rows: Tensor, width: int, *, is_prompt: bool) -> Tensor:
        """Packed rows in the block's rectangle, 0 where it has no token, with key heads in front."""
        tokens, slots, sides = self._place(is_prompt=is_prompt)
        part = rows[tokens]
        if slots is not None:
            part = part.new_zeros(sides[0] * sides[1] * sides[2], part.shape[-1]).index_copy_(0, slots, part)
        part = part.view(*sides, self.heads.num_key_heads, width)
        return part.permute(0, 3, 1, 2, 4).contiguous().view(self.batch, -1, self.heads.head_dim)

    def _write(self, rows: Tensor, parts: list[Tensor], *, is_prompt: bool) -> None:
        """Write the rows back side by side: the way back of `_gathered`."""
        tokens, slots, sides = self._place(is_prompt=is_prompt)
        num_key_heads = self.heads.num_key_heads
        widths = [num_key_heads * width for width in self.heads.widths[: len(parts)]]
        for part, columns in zip(parts, rows[tokens].split(widths, dim=-1), strict=True):
            ordered = part.view(sides[0], num_key_heads, *sides[1:], -1).permute(0, 2, 3, 1, 4)
            if slots is None:
                columns.view(ordered.shape).copy_(ordered)
            else:
                columns.copy_(ordered.reshape(-1, columns.shape[-1])[slots])


def _causal_bias(num_queries: int, num_keys: int, like: Tensor) -> Tensor:
    """0 where one of the last queries may read a key and -inf elsewhere, `[queries, keys]`."""
    return like.new_full((num_queries, num_keys), -torch.inf).triu_(num_keys - num_queries + 1)
