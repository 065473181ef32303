"""Causal attention of packed prompts and responses; all responses to a prompt read the keys of that one prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from klimb.policies.packed_rows import AttentionBlock
from klimb.policies.rotary import rotate

QUERY_CHUNK = 128
"""Positions of a prompt that are queries at once: they need no keys behind them, which saves most of the upper half."""


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
    def num_rotated(self) -> int:
        """Heads of queries and keys together."""
        return self.num_heads + self.num_key_heads

    @property
    def widths(self) -> tuple[int, int, int]:
        """Features of query, key and value for each key head."""
        return self.num_heads // self.num_key_heads * self.head_dim, self.head_dim, self.head_dim


def shared_attention(
    projected: Float[Tensor, "tokens features"],
    angles: tuple[Float[Tensor, "tokens head_dim"], Float[Tensor, "tokens head_dim"]],
    blocks: tuple[AttentionBlock, ...],
    heads: HeadShape,
) -> Float[Tensor, "tokens heads_times_head_dim"]:
    """What each token's heads read: softmax(scaling · q·k) v over the tokens before it and itself.

    A response token reads its prompt and its own response. Rotation is computed in the dtype of the angles, products
    in that of `projected`; the softmax is in float32 or wider and its probabilities are rounded to the dtype of
    `projected`. The forward pass rounds where transformers' eager attention does on a row without padding, and sums in
    its order. Differentiable once; kept are rotated queries and keys, values and probabilities.

    Args:
        projected: queries, keys and values side by side, before rotation.
        angles: cosine and sine at each token's position, the second half of the columns equal to the first.
        blocks: of the packed tokens.
        heads: how the columns are divided.
    """
    half = heads.head_dim // 2
    cos, sin = (table[:, None, :half] for table in angles)
    return _SharedAttention.apply(projected, cos, sin, blocks, heads)


class _SharedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, cos: Tensor, sin: Tensor, blocks: tuple[AttentionBlock, ...], heads: HeadShape
    ) -> Tensor:
        rotated = _rotated(projected, cos, sin, heads)
        out = projected.new_empty(len(projected), heads.num_heads * heads.head_dim)
        kept: list[Tensor] = [cos, sin]
        ctx.counts = []
        for block in blocks:
            tensors = _Block(block, heads).forward(rotated, out)
            kept += tensors
            ctx.counts.append(len(tensors))
        ctx.save_for_backward(*kept)
        ctx.blocks, ctx.heads = blocks, heads
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, *kept = ctx.saved_tensors
        heads = ctx.heads
        grad = grad_out.new_empty(len(grad_out), (heads.num_rotated + heads.num_key_heads) * heads.head_dim)
        for block, count in zip(ctx.blocks, ctx.counts, strict=True):
            tensors, kept = kept[:count], kept[count:]
            _Block(block, heads).backward(tensors, grad_out, grad)
        return _rotated(grad, cos, -sin, heads), None, None, None, None


def _rotated(rows: Tensor, cos: Tensor, sin: Tensor, heads: HeadShape) -> Tensor:
    """Queries rotated and scaled, keys rotated, values as they are; its transpose with -sin."""
    by_head = rows.view(len(rows), -1, heads.head_dim)
    out = torch.empty_like(by_head)
    queries, keys = slice(0, heads.num_heads), slice(heads.num_heads, heads.num_rotated)
    # Scaled inside the rotation, before rounding: for the usual head sizes the scale is a power of 2, so exact.
    rotate(by_head[:, queries], cos * heads.scaling, sin * heads.scaling, out=out[:, queries])
    rotate(by_head[:, keys], cos, sin, out=out[:, keys])
    out[:, heads.num_rotated :].copy_(by_head[:, heads.num_rotated :])
    return out.view(rows.shape)


class _Block:
    """Attention of one block; batched over prompts and key heads."""

    def __init__(self, block: AttentionBlock, heads: HeadShape):
        self.block, self.heads = block, heads
        num_prompts, self.prompt_time, self.num_responses, self.time = block.shape
        self.num_prompts = num_prompts
        self.batch = num_prompts * heads.num_key_heads
        self.repeats = heads.num_heads // heads.num_key_heads

    def forward(self, rotated: Tensor, out: Tensor) -> list[Tensor]:
        """Writes the block's tokens of `out`; returns what the gradient needs."""
        prompt = self._by_head(rotated, is_prompt=True)
        attended, kept = self._prompt_forward(*prompt)
        self._write(out, [attended], is_prompt=True)
        if not self.time:
            return [*prompt, *kept]
        response = self._by_head(rotated, is_prompt=False)
        attended, p = self._response_forward(response, prompt)
        self._write(out, [attended], is_prompt=False)
        return [*prompt, *response, p, *kept]

    def backward(self, kept: list[Tensor], grad_out: Tensor, grad: Tensor) -> None:
        """Writes the block's tokens of `grad`, the gradient of the rotated queries, keys and values."""
        prompt, rest = kept[:3], kept[3:]
        wide = torch.promote_types(torch.float32, grad_out.dtype)
        # Both sums have several parts; in 16 bits each addition would round.
        grad_key, grad_value = (torch.zeros_like(each, dtype=wide) for each in prompt[1:])
        if self.time:
            response, p, rest = rest[:3], rest[3], rest[4:]
            grads = self._response_backward(response, prompt, p, self._split(grad_out)[1], (grad_key, grad_value))
            self._write(grad, grads, is_prompt=False)
        grad_query = self._prompt_backward(prompt, rest, self._split(grad_out)[0], (grad_key, grad_value))
        self._write(grad, [grad_query, grad_key, grad_value], is_prompt=True)

    def _prompt_forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, list[Tensor]]:
        out, kept = torch.empty_like(query), []
        for start, stop, rows in self._query_chunks():
            scores = torch.bmm(query[:, rows], key[:, :stop].transpose(1, 2))
            own = scores.view(self.batch, stop - start, self.repeats, stop)[..., start:]
            own += _causal_bias(stop - start, scores)
            kept.append(_probabilities(scores))
            torch.bmm(kept[-1], value[:, :stop], out=out[:, rows])
        return out, kept

    def _prompt_backward(
        self, prompt: list[Tensor], kept: list[Tensor], grad_out: Tensor, totals: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The gradient of the queries; those of keys and values are added to the totals."""
        query, key, value = prompt
        grad_query, (grad_key, grad_value) = torch.empty_like(query), totals
        for (_, stop, rows), p in zip(self._query_chunks(), kept, strict=True):
            grad_scores = _softmax_backward(torch.bmm(grad_out[:, rows], value[:, :stop].transpose(1, 2)), p)
            torch.bmm(grad_scores, key[:, :stop], out=grad_query[:, rows])
            grad_key[:, :stop] += torch.bmm(grad_scores.transpose(1, 2), query[:, rows])
            grad_value[:, :stop] += torch.bmm(p.transpose(1, 2), grad_out[:, rows])
        return grad_query

    def _response_forward(self, response: list[Tensor], prompt: list[Tensor]) -> tuple[Tensor, Tensor]:
        query, key, value = response
        scores = query.new_empty(*query.shape[:2], self.prompt_time + self.time)
        shared, own = self._parts(scores)
        torch.bmm(query, prompt[1].transpose(1, 2), out=shared)
        torch.bmm(self._each(query), self._each(key).transpose(1, 2), out=own)
        own.view(-1, self.time, self.repeats, self.time).add_(_causal_bias(self.time, scores))
        p = _probabilities(scores)
        # One product over all values, though it copies the prompt's: the sum of two would be rounded twice.
        values = prompt[2][:, None].expand(-1, self.num_responses, -1, -1).flatten(0, 1)
        return torch.bmm(self._each(p), torch.cat([values, self._each(value)], dim=1)).view(query.shape), p

    def _response_backward(
        self, response: list[Tensor], prompt: list[Tensor], p: Tensor, grad_out: Tensor, totals: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """Gradients of the response's queries, keys and values; those of the prompt's are added to the totals."""
        query, key, value = response
        grad_p = torch.empty_like(p)
        grad_shared, grad_own = self._parts(grad_p)
        torch.bmm(grad_out, prompt[2].transpose(1, 2), out=grad_shared)
        torch.bmm(self._each(grad_out), self._each(value).transpose(1, 2), out=grad_own)
        s_shared, s_own = self._parts(_softmax_backward(grad_p, p))
        p_shared, p_own = self._parts(p)
        totals[0].add_(torch.bmm(s_shared.transpose(1, 2), query))
        totals[1].add_(torch.bmm(p_shared.transpose(1, 2), grad_out))
        grad_query = torch.bmm(s_shared, prompt[1])
        self._each(grad_query).baddbmm_(s_own, self._each(key))
        grad_key = torch.bmm(s_own.transpose(1, 2), self._each(query))
        grad_value = torch.bmm(p_own.transpose(1, 2), self._each(grad_out))
        return [grad_query, grad_key, grad_value]

    def _query_chunks(self) -> list[tuple[int, int, slice]]:
        """First position, position behind the last, and rows (positions times repeats) of each chunk of queries."""
        starts = range(0, self.prompt_time, QUERY_CHUNK)
        bounds = [(start, min(start + QUERY_CHUNK, self.prompt_time)) for start in starts]
        return [(start, stop, slice(start * self.repeats, stop * self.repeats)) for start, stop in bounds]

    def _parts(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of the prompt's keys, and those of the response's own keys as one matrix for each response."""
        return scores[..., : self.prompt_time], self._each(scores)[..., self.prompt_time :]

    def _each(self, rows: Tensor) -> Tensor:
        """`[batch, responses * rows, columns]` as `[batch * responses, rows, columns]`."""
        return rows.view(self.batch * self.num_responses, -1, rows.shape[-1])

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The query-shaped columns of prompts and of responses, by key head."""
        width = self.heads.widths[0]
        prompt, response = (self._gathered(rows, width, is_prompt=is_prompt) for is_prompt in (True, False))
        return prompt, response

    def _by_head(self, rows: Tensor, *, is_prompt: bool) -> list[Tensor]:
        """Queries, keys and values of the block, each `[batch, rows, head_dim]`."""
        widths = self.heads.widths
        columns = rows.split([self.heads.num_key_heads * width for width in widths], dim=-1)
        return [self._gathered(part, width, is_prompt=is_prompt) for part, width in zip(columns, widths, strict=True)]

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
        """The way back of `_gathered`, side by side."""
        tokens, slots, sides = self._place(is_prompt=is_prompt)
        num_key_heads = self.heads.num_key_heads
        widths = [num_key_heads * width for width in self.heads.widths[: len(parts)]]
        for part, columns in zip(parts, rows[tokens].split(widths, dim=-1), strict=True):
            ordered = part.view(sides[0], num_key_heads, *sides[1:], -1).permute(0, 2, 3, 1, 4)
            if slots is None:
                columns.view(ordered.shape).copy_(ordered)
            else:
                columns.copy_(ordered.reshape(-1, columns.shape[-1])[slots])


def _probabilities(scores: Tensor) -> Tensor:
    wide = torch.promote_types(torch.float32, scores.dtype)
    return scores.softmax(-1, dtype=wide).to(scores.dtype)


def _causal_bias(size: int, like: Tensor) -> Tensor:
    """0 where a query may read a key and -inf elsewhere, `[queries, 1, keys]`."""
    return like.new_full((size, size), -torch.inf).triu_(1)[:, None]


def _softmax_backward(grad: Tensor, p: Tensor) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad, p, -1, p.dtype)
