"""Root-mean-square normalisation of the residual stream, together with the addition that comes before it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from klimb.policies.row_chunks import row_chunks


def rms_norm_of_sum(
    stream: Float[Tensor, "tokens hidden"],
    delta: Float[Tensor, "tokens hidden"] | None,
    weight: Float[Tensor, " hidden"],
    *,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens hidden"]]:
    """The residual stream after the addition, and its normalisation.

        s = stream + delta;   y = weight * s / sqrt(mean(s²) + epsilon)

    s and the arithmetic have the dtype of `stream`; y is rounded to `dtype` at the end, which is what the linear layers
    that read it do under autocast. Differentiable once. Kept for the gradient are s and one number for each token.

    Args:
        stream: float32 or wider.
        delta: what a layer adds to the stream, in any dtype; None for nothing.
        weight: scale of each feature.
        epsilon: added to the mean square.
        dtype: of y.

    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    return _RmsNormOfSum.apply(stream, delta, weight, epsilon, dtype)


class _RmsNormOfSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        total = stream.view_as(stream) if delta is None else torch.empty_like(stream)
        normed = torch.empty(stream.shape, dtype=dtype, device=stream.device)
        inverse = stream.new_empty(len(stream), 1)
        for rows in row_chunks(stream):
            s = stream[rows] if delta is None else torch.add(stream[rows], delta[rows], out=total[rows])
            # As transformers sums it: another order moves later roundings to 16 bits, and with them log-probabilities.
            inverse[rows] = s.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
            normed[rows] = (s * inverse[rows]).mul_(weight)
        ctx.save_for_backward(total, inverse, weight)
        ctx.delta_dtype = None if delta is None else delta.dtype
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, inverse, weight = ctx.saved_tensors
        if grad_normed is None:
            grad, grad_weight = grad_total, None
        else:
            grad, grad_weight = _backward(total, inverse, weight, grad_total, grad_normed)
        grad_delta = None if ctx.delta_dtype is None or grad is None else grad.to(ctx.delta_dtype)
        return grad, grad_delta, grad_weight, None, None


def _backward(
    total: Tensor, inverse: Tensor, weight: Tensor, grad_total: Tensor | None, grad_normed: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of s and of the weight.

    With n = s / rms and g = dL/dy:  dL/dweight = Σ_tokens g·n;   dL/ds = (weight·g - n·mean(weight·g·n)) / rms.
    """
    grad, grad_weight = torch.empty_like(total), torch.zeros_like(weight)
    num_features = total.shape[-1]
    for rows in row_chunks(total):
        g = grad_normed[rows].to(total.dtype)
        unit = total[rows] * inverse[rows]
        product = g * unit
        grad_weight += product.sum(0)
        along = torch.mv(product, weight).div_(num_features)
        slope = torch.addcmul(g * weight, unit, along[:, None], value=-1)
        if grad_total is None:
            torch.mul(slope, inverse[rows], out=grad[rows])
        else:
            torch.addcmul(grad_total[rows], slope, inverse[rows], out=grad[rows])
    return grad, grad_weight
