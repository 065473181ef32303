"""The tiled head against full logits: values, gradients, and what it keeps in memory."""

import math

import pytest
import torch
from torch import nn

from klimb.policies import token_log_probs

TILES = {"block_tokens": 5, "tile_vocab": 16}
"""Small tiles: 13 tokens and 70 words leave a remainder in both directions."""


def naive(hidden, weight, targets, *, bias=None, temperature=1.0, softcap=None):
    """Log-probabilities and entropies from the full logits."""
    z = hidden @ weight.t()
    if bias is not None:
        z = z + bias
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    log_p = (z / temperature).log_softmax(-1)
    return log_p.gather(-1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def example(*, num_tokens=13, num_hidden=8, num_vocab=70, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_tokens, num_hidden, dtype=dtype, generator=generator).requires_grad_()
    weight = torch.randn(num_vocab, num_hidden, dtype=dtype, generator=generator).requires_grad_()
    bias = torch.randn(num_vocab, dtype=dtype, generator=generator).requires_grad_()
    targets = torch.randint(num_vocab, (num_tokens,), generator=generator)
    return hidden, weight, bias, targets


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_values_and_gradients_are_those_of_full_logits(with_bias, temperature, softcap):
    hidden, weight, bias, targets = example()
    options = {"bias": bias if with_bias else None, "temperature": temperature, "softcap": softcap}
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    expected_log_pi, expected_entropy = naive(hidden, weight, targets, **options)
    out = token_log_probs(hidden, weight, targets, with_entropy=True, **options, **TILES)
    # Any scalar function of both results; a nonlinear one gives every token its own gradient.
    expected = torch.autograd.grad((expected_log_pi.exp() + expected_entropy.sin()).sum(), leaves)
    actual = torch.autograd.grad((out.log_pi.exp() + out.entropy.sin()).sum(), leaves)
    torch.testing.assert_close(out.log_pi, expected_log_pi, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.entropy, expected_entropy, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradcheck_of_log_prob_and_entropy_in_float64(softcap):
    hidden, weight, bias, targets = example(num_tokens=3, num_hidden=4, num_vocab=11)

    def both(hidden, weight, bias):
        out = token_log_probs(
            hidden, weight, targets, bias=bias, temperature=0.8, softcap=softcap, with_entropy=True,
            block_tokens=2, tile_vocab=4,
        )  # fmt: skip
        return out.log_pi, out.entropy

    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


def test_without_entropy_the_log_probs_and_gradients_are_the_same():
    hidden, weight, _, targets = example()
    plain = token_log_probs(hidden, weight, targets, **TILES)
    full = token_log_probs(hidden, weight, targets, with_entropy=True, **TILES)
    assert plain.entropy is None
    torch.testing.assert_close(plain.log_pi, full.log_pi, rtol=0, atol=1e-13)
    for ours, theirs in zip(
        torch.autograd.grad(plain.log_pi.exp().sum(), [hidden, weight]),
        torch.autograd.grad(full.log_pi.exp().sum(), [hidden, weight]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_kept_logits_change_no_value_and_no_gradient_however_often_it_is_taken(softcap):
    # 13 x 70 float64 logits are 7280 bytes: nothing is kept, some tiles, or all.
    hidden, weight, bias, targets = example()
    results = []
    for kept_bytes in (0, 3000, 10**6):
        out = token_log_probs(
            hidden, weight, targets, bias=bias, softcap=softcap, with_entropy=True, kept_bytes=kept_bytes, **TILES
        )
        loss = out.log_pi.exp().sum() + out.entropy.sin().sum()
        first = torch.autograd.grad(loss, [hidden, weight, bias], retain_graph=True)
        results.append((loss, *first, *torch.autograd.grad(loss, [hidden, weight, bias])))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_an_entropy_that_the_loss_ignores_costs_the_gradient_nothing():
    hidden, weight, _, targets = example()
    plain = token_log_probs(hidden, weight, targets, **TILES).log_pi.sum()
    beside = token_log_probs(hidden, weight, targets, with_entropy=True, **TILES).log_pi.sum()
    alone = token_log_probs(hidden, weight, targets, with_entropy=True, **TILES).entropy.sum()
    expected, actual = (torch.autograd.grad(loss, [hidden, weight]) for loss in (plain, beside))
    assert all(map(torch.equal, actual, expected))
    of_entropy = torch.autograd.grad(alone, [hidden, weight])
    for ours, theirs in zip(
        of_entropy, torch.autograd.grad(naive(hidden, weight, targets)[1].sum(), [hidden, weight]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_default_tiles_agree_with_full_logits_beyond_one_tile():
    hidden, weight, _, targets = example(num_tokens=600, num_vocab=4500, dtype=torch.float32)
    out = token_log_probs(hidden, weight, targets, with_entropy=True)
    log_pi, entropy = naive(hidden.double(), weight.double(), targets)
    # float32 sums of 4500 terms: a few times the unit round-off of 6e-8 on values near 10.
    torch.testing.assert_close(out.log_pi.double(), log_pi, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.entropy.double(), entropy, rtol=0, atol=1e-5)


def test_tied_weight_collects_the_gradients_of_both_uses():
    _, _, _, targets = example()
    embedding = nn.Embedding(70, 8, dtype=torch.float64)
    hidden = torch.tanh(embedding(targets))
    ours = token_log_probs(hidden, embedding.weight, targets.flip(0), **TILES).log_pi.sum()
    theirs = naive(hidden, embedding.weight, targets.flip(0))[0].sum()
    actual, expected = (torch.autograd.grad(x, embedding.weight, retain_graph=True)[0] for x in (ours, theirs))
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_frozen_weight_gets_no_gradient_and_hidden_gets_the_same():
    hidden, weight, _, targets = example()
    (expected,) = torch.autograd.grad(token_log_probs(hidden, weight, targets, **TILES).log_pi.sum(), [hidden])
    frozen = weight.detach()
    token_log_probs(hidden, frozen, targets, **TILES).log_pi.sum().backward()
    assert frozen.grad is None
    torch.testing.assert_close(hidden.grad, expected, rtol=0, atol=0)


def test_no_tokens_give_empty_results_and_zero_gradients():
    hidden, weight, _, targets = example(num_tokens=0)
    out = token_log_probs(hidden, weight, targets, with_entropy=True)
    assert out.log_pi.shape == out.entropy.shape == (0,)
    (out.log_pi.sum() + out.entropy.sum()).backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_logits_far_apart_stay_finite_and_exact():
    # u = (0, -1000, 500): log p = u - 500, entropy 0, by hand; the peak moves twice while the tiles go by.
    hidden = torch.tensor([[1.0]]).requires_grad_()
    weight = torch.tensor([[0.0], [-1000.0], [500.0]])
    for target, log_pi in enumerate([-500.0, -1500.0, 0.0]):
        out = token_log_probs(hidden, weight, torch.tensor([target]), with_entropy=True, tile_vocab=1)
        assert out.log_pi.item() == log_pi
        assert out.entropy.item() == 0.0
        (gradient,) = torch.autograd.grad(out.log_pi.sum() + out.entropy.sum(), [hidden])
        assert gradient.item() == weight[target].item() - 500.0


def test_uniform_logits_have_the_entropy_of_the_uniform_distribution():
    out = token_log_probs(torch.zeros(2, 4), torch.randn(70, 4), torch.tensor([3, 69]), with_entropy=True, **TILES)
    torch.testing.assert_close(out.entropy, torch.full((2,), math.log(70)))
    torch.testing.assert_close(out.log_pi, torch.full((2,), -math.log(70)))


def bfloat16_example(num_tokens=256, num_hidden=64, num_vocab=1000):
    hidden, weight, _, targets = example(
        num_tokens=num_tokens, num_hidden=num_hidden, num_vocab=num_vocab, dtype=torch.float32
    )
    return hidden, (weight.detach() * 0.3).requires_grad_(), targets


def test_under_autocast_results_and_weight_gradient_are_float32_and_near_float64():
    hidden, weight, targets = bfloat16_example()
    with torch.autocast("cpu", torch.bfloat16):
        out = token_log_probs(hidden, weight, targets, with_entropy=True, tile_vocab=128)
    assert out.log_pi.dtype == out.entropy.dtype == torch.float32
    (out.log_pi.sum() + 0.1 * out.entropy.sum()).backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    hidden64, weight64 = (x.detach().double().requires_grad_() for x in (hidden, weight))
    log_pi, entropy = naive(hidden64, weight64, targets)
    (log_pi.sum() + 0.1 * entropy.sum()).backward()
    # bfloat16 keeps 8 bits: a logit near 10 is off by up to 0.03 by its own rounding, and as much by its inputs'.
    torch.testing.assert_close(out.log_pi.double(), log_pi, rtol=0, atol=0.1)
    for ours, theirs in ((hidden.grad, hidden64.grad), (weight.grad, weight64.grad)):
        assert (ours.double() - theirs).norm() / theirs.norm() < 0.01


def test_bfloat16_gradients_have_no_bias_along_the_true_gradient():
    # Rounding must not shrink or stretch the gradient: the component of the error along the true gradient is far
    # below the error itself (about 4e-3 in norm).
    hidden, weight, targets = bfloat16_example(num_tokens=512)
    with torch.autocast("cpu", torch.bfloat16):
        token_log_probs(hidden, weight, targets, tile_vocab=64).log_pi.sum().backward()
    hidden64, weight64 = (x.detach().double().requires_grad_() for x in (hidden, weight))
    naive(hidden64, weight64, targets)[0].sum().backward()
    for ours, theirs in ((hidden.grad, hidden64.grad), (weight.grad, weight64.grad)):
        stretch = ((ours.double() * theirs).sum() / theirs.square().sum()).item()
        assert abs(stretch - 1) < 1e-3


def test_no_tensor_wider_than_a_tile_is_made(monkeypatch):
    hidden, weight, _, targets = example(num_tokens=40, num_vocab=512, dtype=torch.float32)
    largest = LargestResult()
    with largest:
        out = token_log_probs(hidden, weight, targets, with_entropy=True, block_tokens=8, tile_vocab=32)
    with largest:
        (out.log_pi.sum() + out.entropy.sum()).backward()
    # The gradient of the weight is 512 x 8; no [tokens, vocabulary] tensor (20480) and none near it.
    assert largest.num_elements == 512 * 8


class LargestResult(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returns, views left out."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, torch.Tensor):
                self.num_elements = max(self.num_elements, item.numel())
        return result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"softcap": -1.0}, "softcap must be > 0, got -1.0"),
        ({"targets": torch.tensor([0, 1])}, "one id for each of 13 tokens"),
        ({"targets": torch.full((13,), 70)}, r"targets must be in \[0, 70\)"),
        ({"weight": torch.zeros(70, 9, dtype=torch.float64)}, "hidden must be"),
    ],
)
def test_bad_arguments_are_named(change, message, without_shape_checks):
    hidden, weight, _, targets = example()
    arguments = {"hidden": hidden, "weight": weight, "targets": targets, **change}
    with pytest.raises(ValueError, match=message):
        token_log_probs(**arguments)
