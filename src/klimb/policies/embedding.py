"""The input embedding: rows of a weight."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from klimb.policies.gradients import gradient_at, place_for_gradient
from klimb.policies.joint_linear import has_no_hooks


def embedded(ids: Int[Tensor, " tokens"], layer: nn.Module) -> Float[Tensor, "tokens hidden"]:
    """What the layer says of the ids; differentiable once.

    Args:
        ids: token ids.
        layer: an embedding, or something that behaves like one; anything but a plain embedding is called.
    """
    if type(layer) is nn.Embedding and has_no_hooks(layer) and layer.padding_idx is None:
        is_plain = layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
        if is_plain and place_for_gradient(layer.weight) is not None:
            return _Embedding.apply(ids, layer.weight)
    return layer(ids)


class _Embedding(torch.autograd.Function):
    """With the gradient added in place."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.place = weight
        return nn.functional.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        (ids,) = ctx.saved_tensors
        gradient_at(ctx.place).index_add_(0, ids, grad)
        return None, None
