"""Linear layers made ready for many products with few rows: several in one product, in the layout the CPU wants."""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from klimb.samplers.architecture import LinearWeights

TYPICAL_ROWS = 64
"""The layout is chosen for this many rows at a time; it serves other numbers too."""


class PreparedLinear:
    """Several linear layers of the same input; the result holds their outputs side by side.

    Products are those of autocast: with bfloat16, input, weights and biases are rounded to it, sums are float32, and
    the result is rounded once. An adapter's update is added as peft adds it, so that it rounds as in the trainer;
    merged into the weight, most of a small update would be lost in the weight's last bit.

    In bfloat16 the weights are copied, and packed where the CPU's library has a layout of its own. In float32 the
    model's own are read.
    """

    def __init__(self, layers: Sequence[LinearWeights], *, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._widths = [len(layer.weight) for layer in layers]
        self._biases = _joined_biases(layers, dtype)
        self._low_rank = _low_rank_columns(layers, dtype)
        self._is_packed = dtype == torch.bfloat16 and can_pack()
        if dtype == torch.float32:
            self._weights = [layer.weight for layer in layers]
            return
        weight = torch.cat([layer.weight.to(dtype) for layer in layers])
        self._weights = [_packed(weight) if self._is_packed else weight]

    def __call__(self, inputs: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Outputs in the dtype of the layer, which must be that of the inputs."""
        if self._is_packed:
            outputs = torch.ops.mkldnn._linear_pointwise(inputs, self._weights[0], self._biases, "none", [], "")
        elif len(self._weights) == 1:
            outputs = functional.linear(inputs, self._weights[0], self._biases)
        else:
            outputs = self._side_by_side(inputs)
        for columns, down, up, scaling in self._low_rank:
            outputs[:, columns] += functional.linear(functional.linear(inputs, down), up) * scaling
        return outputs

    def _side_by_side(self, inputs: Tensor) -> Tensor:
        outputs = inputs.new_empty(len(inputs), sum(self._widths))
        for weight, part in zip(self._weights, outputs.split(self._widths, dim=1), strict=True):
            torch.mm(inputs, weight.t(), out=part)
        return outputs if self._biases is None else outputs.add_(self._biases)


@cache
def can_pack() -> bool:
    """True if torch can keep a bfloat16 weight in its library's own layout on this CPU, and products come out right."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    weight = (torch.arange(96 * 64).view(96, 64) % 7 - 3).bfloat16()
    inputs = (torch.arange(5 * 64).view(5, 64) % 5 - 2).bfloat16()
    try:
        found = torch.ops.mkldnn._linear_pointwise(inputs, _packed(weight), None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    # Small whole numbers: exact in any order of summation.
    return torch.equal(found, functional.linear(inputs, weight))


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)


def _joined_biases(layers: Sequence[LinearWeights], dtype: torch.dtype) -> Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    return torch.cat(biases).to(dtype)


def _low_rank_columns(layers: Sequence[LinearWeights], dtype: torch.dtype) -> list[tuple[slice, Tensor, Tensor, float]]:
    found, start = [], 0
    for layer in layers:
        columns = slice(start, start + len(layer.weight))
        start = columns.stop
        if layer.low_rank is not None:
            found.append((columns, layer.low_rank.down.to(dtype), layer.low_rank.up.to(dtype), layer.low_rank.scaling))
    return found
