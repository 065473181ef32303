"""Prepared products against the plain ones."""

import pytest
import torch
from torch.nn import functional

from klimb.samplers.weights import LinearWeights, LowRank, PreparedLinear, can_pack


def weights(outputs: int, *, seed: int, bias: bool = False) -> LinearWeights:
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: sums are exact in bfloat16 products too, in any order.
    weight = torch.randint(-2, 3, (outputs, 16), generator=generator).float()
    return LinearWeights(weight, torch.randint(-9, 9, (outputs,), generator=generator).float() if bias else None)


def inputs(rows: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-2, 3, (rows, 16), generator=torch.Generator().manual_seed(9)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 64, 200])
def test_outputs_stand_side_by_side(dtype: torch.dtype, packs: bool, rows: int, monkeypatch: pytest.MonkeyPatch):
    if not (packs and can_pack()):
        monkeypatch.setattr("klimb.samplers.weights.can_pack", lambda: False)
    layers = [weights(8, seed=0), weights(5, seed=1, bias=True), weights(3, seed=2)]
    x = inputs(rows, dtype)
    found = PreparedLinear(layers, dtype=dtype)(x)
    expected = [functional.linear(x.float(), layer.weight, layer.bias) for layer in layers]
    assert found.dtype == dtype
    assert torch.equal(found.float(), torch.cat(expected, dim=1))


def test_an_adapter_adds_to_its_own_columns():
    plain, adapted = weights(4, seed=0), weights(6, seed=1)
    low_rank = LowRank(weights(2, seed=3).weight, torch.ones(6, 2), 0.5)
    x = inputs(7, torch.float32)
    found = PreparedLinear([plain, LinearWeights(adapted.weight, None, low_rank)], dtype=torch.float32)(x)
    update = 0.5 * x @ low_rank.down.t() @ low_rank.up.t()
    expected = torch.cat([x @ plain.weight.t(), x @ adapted.weight.t() + update], dim=1)
    torch.testing.assert_close(found, expected)


def test_float32_keeps_no_copy_of_the_weights():
    layer = weights(4, seed=0)
    prepared = PreparedLinear([layer, weights(2, seed=1)], dtype=torch.float32)
    before = prepared(inputs(2, torch.float32))
    layer.weight.zero_()
    after = prepared(inputs(2, torch.float32))
    assert before[:, :4].any() and not after[:, :4].any()
