"""The gate of a SwiGLU feed-forward layer."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from klimb.policies.row_chunks import row_chunks


def swiglu(gate_and_up: Float[Tensor, "tokens both"]) -> Float[Tensor, "tokens half"]:
    """silu(gate) * up, where the first half of the columns is the gate and the second half is up.

    Each of the two operations rounds to the dtype of its input. Differentiable once; only the input is kept.

    Source: Shazeer 2020, arXiv 2002.05202.
    """
    return _SwiGlu.apply(gate_and_up)


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_and_up)
        gate, up = gate_and_up.chunk(2, dim=-1)
        out = gate_and_up.new_empty(gate.shape)
        for rows in row_chunks(gate_and_up):
            torch.mul(nn.functional.silu(gate[rows]), up[rows], out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Tensor:
        (gate_and_up,) = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        grad = torch.empty_like(gate_and_up)
        grad_gate, grad_up = grad.chunk(2, dim=-1)
        for rows in row_chunks(gate_and_up):
            torch.mul(grad_out[rows], nn.functional.silu(gate[rows]), out=grad_up[rows])
            grad_gate[rows] = torch.ops.aten.silu_backward(grad_out[rows] * up[rows], gate[rows])
        return grad
