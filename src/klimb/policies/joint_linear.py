"""Linear layers that read the same input, as one matrix product."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from klimb.policies.gradients import given_gradient, place_for_gradient


def joint_linear(
    inputs: Float[Tensor, "tokens hidden"], layers: Sequence[nn.Module], *, dtype: torch.dtype
) -> Float[Tensor, "tokens features"]:
    """The outputs of the layers side by side, in `dtype`, as they would be under autocast to it.

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
    """True for a linear layer whose output is nothing but its product."""
    # Exactly these classes: a sharded or quantised weight multiplies in its own way.
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and has_no_hooks(layer)


def has_no_hooks(layer: nn.Module) -> bool:
    """True if nothing but the layer itself runs when it is called."""
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
