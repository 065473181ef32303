"""The element-wise and linear parts of a Llama layer, forward and backward.

Root-mean-square norm together with the residual addition before it, the gate of the SwiGLU with the linear layer behind
it, linear layers with one input as one matrix product, and the input embedding.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from klimb.policies.gradients import given_gradient, gradient_at, place_for_gradient
from klimb.policies.row_chunks import row_chunks


def rms_norm_of_sum(
    stream: Float[Tensor, "tokens hidden"],
    delta: Float[Tensor, "tokens hidden"] | None,
    weight: Float[Tensor, " hidden"],
    *,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "tokens hidden"], Float[Tensor, "tokens hidden"]]:
    """Return the residual stream after the addition, and its normalisation.

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


def joint_linear(
    inputs: Float[Tensor, "tokens hidden"], layers: Sequence[nn.Module], *, dtype: torch.dtype
) -> Float[Tensor, "tokens features"]:
    """Return the outputs of the layers side by side, in `dtype`, as they would be under autocast to it.

    Plain linear layers are one product with their weights on top of each other. If one of them is anything else (an
    adapter around it, a hook on it), each is called.

    Args:
        inputs: in `dtype`.
        layers: each a linear layer, or something that behaves like one.
        dtype: of the products.
    """
    plain = [layer for layer in layers if is_plain(layer)]
    if len(plain) == len(layers) and len({layer.bias is None for layer in plain}) == 1:
        biases = [layer.bias for layer in plain if layer.bias is not None]
        return _JointLinear.apply(inputs, len(plain), *(layer.weight for layer in plain), *biases)
    with torch.autocast(inputs.device.type, dtype, enabled=dtype == torch.bfloat16):
        outputs = [layer(inputs) for layer in layers]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


def is_plain(layer: nn.Module) -> bool:
    """Return True for a linear layer whose output is nothing but its product."""
    # Exactly these classes: a sharded or quantised weight multiplies in its own way.
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and has_no_hooks(layer)


def has_no_hooks(layer: nn.Module) -> bool:
    """Return True if nothing but the layer itself runs when it is called."""
    return not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if len(parts) == 1:
        return parts[0].to(dtype)
    joined = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=dtype)
    # Rounded on the way, without the parts in both dtypes at once.
    for place, part in zip(joined.split([len(part) for part in parts]), parts, strict=True):
        place.copy_(part)
    return joined


class _JointLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, num_layers: int, *parameters: Tensor) -> Tensor:
        weights, biases = parameters[:num_layers], parameters[num_layers:]
        weight = _joined(weights, inputs.dtype)
        is_trained = any(ctx.needs_input_grad[2 : 2 + num_layers])
        # Not the joined weight: joining once more is cheap, and all of them are as large as the activations.
        ctx.save_for_backward(inputs if is_trained else None, *weights)
        ctx.dtype = inputs.dtype
        ctx.places = [place_for_gradient(each) for each in weights]
        ctx.bias_dtypes = [bias.dtype for bias in biases]
        if biases:
            return torch.addmm(_joined(biases, inputs.dtype), inputs, weight.t())
        return inputs @ weight.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, *weights = ctx.saved_tensors
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = grad @ _joined(weights, ctx.dtype)
        sizes = [len(each) for each in weights]
        grad_weights: list[Tensor | None] = [None] * len(weights)
        if inputs is not None:
            parts = (grad.t() @ inputs).split(sizes)
            grad_weights = [
                given_gradient(part, each.dtype, place)
                for part, each, place in zip(parts, weights, ctx.places, strict=True)
            ]
        if not ctx.bias_dtypes:
            return grad_inputs, None, *grad_weights
        parts = grad.sum(0).split(sizes)
        grad_biases = [part.to(dtype) for part, dtype in zip(parts, ctx.bias_dtypes, strict=True)]
        return grad_inputs, None, *grad_weights, *grad_biases


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


def embedded(ids: Int[Tensor, " tokens"], layer: nn.Module) -> Float[Tensor, "tokens hidden"]:
    """Return what the layer says of the ids; differentiable once.

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
