"""The gate of a SwiGLU feed-forward layer, and the linear layer that reads what it lets through."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from klimb.policies.gradients import given_gradient, place_for_gradient
from klimb.policies.joint_linear import is_plain, joint_linear
from klimb.policies.row_chunks import row_chunks


def gated_linear(
    gate_and_up: Float[Tensor, "tokens both"], layer: nn.Module, *, dtype: torch.dtype
) -> Float[Tensor, "tokens features"]:
    """layer(silu(gate) * up), where the first half of the columns is the gate and the second half is up.

    Each operation rounds to `dtype`. Differentiable once. In front of a plain layer only the input is kept: the
    gradient needs silu(gate) anyway, and one product more gives what the layer read.

    Args:
        gate_and_up: in `dtype`.
        layer: a linear layer, or something that behaves like one.
        dtype: of the products.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    if is_plain(layer) and layer.bias is None:
        return _GatedLinear.apply(gate_and_up, layer.weight)
    gate, up = gate_and_up.chunk(2, dim=-1)
    return joint_linear(nn.functional.silu(gate) * up, (layer,), dtype=dtype)


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate_and_up, weight)
        ctx.place = place_for_gradient(weight)
        gate, up = gate_and_up.chunk(2, dim=-1)
        gated = gate_and_up.new_empty(gate.shape)
        for rows in row_chunks(gate_and_up):
            torch.mul(nn.functional.silu(gate[rows]), up[rows], out=gated[rows])
        return gated @ weight.to(gated.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gate_and_up, weight = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        grad_gated = grad @ weight.to(grad.dtype)
        grad_input = torch.empty_like(gate_and_up)
        grad_gate, grad_up = grad_input.chunk(2, dim=-1)
        for rows in row_chunks(gate_and_up):
            passed = nn.functional.silu(gate[rows])
            grad_rows = grad_gated[rows]
            torch.mul(grad_rows, passed, out=grad_up[rows])
            torch.ops.aten.silu_backward.grad_input(grad_rows * up[rows], gate[rows], grad_input=grad_gate[rows])
            # What the layer read takes the place of its gradient.
            torch.mul(passed, up[rows], out=grad_rows)
        if not ctx.needs_input_grad[1]:
            return grad_input, None
        return grad_input, given_gradient(grad.t() @ grad_gated, weight.dtype, ctx.place)
