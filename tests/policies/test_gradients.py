"""Gradients that are added to `.grad` in place are those of autograd."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from klimb.policies import LoraSettings, gradients_in_place, load_policy, token_log_probs
from klimb.policies.llama.ops import embedded, gated_linear, joint_linear

PROMPTS = [[5, 6, 7, 8], [9, 10]]
INDEX = torch.tensor([0, 0, 1, 1, 1])
IDS = torch.arange(5 * 6).view(5, 6) % 90 + 3
MASK = torch.arange(6) < torch.tensor([6, 3, 1, 5, 4])[:, None]


def backward(policy, *, checkpointing="never"):
    policy = replace(policy, activation_checkpointing=checkpointing)
    scored = policy.log_probs(PROMPTS, INDEX, IDS, MASK, with_entropy=True)
    weights = torch.linspace(-1.0, 1.0, MASK.numel()).view(MASK.shape)
    ((scored.log_pi + 0.1 * scored.entropy) * weights)[MASK].sum().backward()


def gradients_of(policy, run, *, times=1):
    policy.model.zero_grad(set_to_none=True)
    for _ in range(times):
        run()
    return {name: parameter.grad for name, parameter in policy.trainable().items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name] is not None, name
        assert found[name].dtype == gradient.dtype
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-12, name


def in_place(run):
    with gradients_in_place():
        run()


@pytest.mark.parametrize("checkpointing", ["never", "always"])
@pytest.mark.parametrize("times", [1, 2])
def test_the_whole_policy_gets_the_same_gradients(tiny_model_path, checkpointing, times):
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu")
    assert policy.packs_rows
    expected = gradients_of(policy, lambda: backward(policy), times=times)
    found = gradients_of(policy, lambda: in_place(lambda: backward(policy, checkpointing=checkpointing)), times=times)
    assert_close(found, expected)


@pytest.mark.parametrize("kind", ["bfloat16", "adapter", "DoRA", "transformers"])
def test_policies_of_other_kinds_get_the_same_gradients(tiny_model_path, kind):
    policy = load_policy(
        tiny_model_path,
        dtype="bfloat16" if kind == "bfloat16" else "float32",
        device="cpu",
        lora=LoraSettings(dora=kind == "DoRA") if kind in ("adapter", "DoRA") else None,
        attention="eager" if kind == "transformers" else "auto",
    )
    assert policy.packs_rows == (kind != "transformers")
    for name, parameter in policy.trainable().items():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    expected = gradients_of(policy, lambda: backward(policy), times=2)
    found = gradients_of(policy, lambda: in_place(lambda: backward(policy)), times=2)
    assert_close(found, expected)


def test_autograd_adds_nothing_where_it_is_done_in_place(tiny_model_path):
    policy = load_policy(tiny_model_path, dtype="float32", device="cpu")
    names = {id(parameter): name for name, parameter in policy.trainable().items()}
    with gradients_in_place():
        scored = policy.log_probs(PROMPTS, INDEX, IDS, MASK)
    grads = torch.autograd.grad(scored.log_pi[MASK].sum(), list(policy.trainable().values()), allow_unused=True)
    through_autograd = [names[id(p)] for p, g in zip(policy.trainable().values(), grads, strict=True) if g is not None]
    assert through_autograd
    assert all("norm" in name or "bias" in name for name in through_autograd)


@pytest.mark.parametrize("kind", ["hook", "post-accumulate"])
def test_a_weight_with_a_hook_is_left_to_autograd(kind):
    layer = nn.Linear(4, 3, bias=False)
    seen = []
    if kind == "hook":
        layer.weight.register_hook(lambda grad: seen.append(grad.shape))
    else:
        layer.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.shape))
    with gradients_in_place():
        joint_linear(torch.ones(2, 4), (layer,), dtype=torch.float32).sum().backward()
    assert seen == [(3, 4)]
    assert torch.equal(layer.weight.grad, torch.full((3, 4), 2.0))


def test_a_frozen_weight_gets_none():
    layers = [nn.Linear(4, 3, bias=False), nn.Linear(4, 2, bias=False)]
    layers[1].weight.requires_grad_(False)
    with gradients_in_place():
        joint_linear(torch.ones(2, 4), layers, dtype=torch.float32).sum().backward()
    assert torch.equal(layers[0].weight.grad, torch.full((3, 4), 2.0))
    assert layers[1].weight.grad is None


def test_outside_everything_goes_through_autograd():
    layer, gate = nn.Linear(4, 6, bias=False), nn.Linear(3, 2, bias=False)
    with gradients_in_place():
        pass
    out = gated_linear(joint_linear(torch.ones(2, 4), (layer,), dtype=torch.float32), gate, dtype=torch.float32)
    found = torch.autograd.grad(out.sum(), [layer.weight, gate.weight])
    assert all(gradient.abs().sum() > 0 for gradient in found)
    assert layer.weight.grad is None
    assert gate.weight.grad is None


@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 1}, {"scale_grad_by_freq": True}, {"max_norm": 0.5}, {"sparse": True}]
)
def test_embeddings_of_every_kind_get_their_own_gradient(options):
    ids = torch.tensor([1, 2, 2, 2, 0])
    expected, found = (nn.Embedding(4, 3, **options) for _ in range(2))
    found.load_state_dict(expected.state_dict())
    weights = torch.arange(15.0).view(5, 3)
    (expected(ids) * weights).sum().backward()
    with gradients_in_place():
        (embedded(ids, found) * weights).sum().backward()
    assert found.weight.grad.layout == expected.weight.grad.layout
    assert torch.equal(found.weight.grad.to_dense(), expected.weight.grad.to_dense())
    assert torch.equal(found.weight, expected.weight)


def test_a_head_in_16_bits_adds_up_in_32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 8).bfloat16(), nn.Parameter(torch.randn(30, 8).bfloat16())
    targets = torch.arange(64) % 30

    def gradient():
        weight.grad = None
        token_log_probs(hidden, weight, targets, block_tokens=4).log_pi.sum().backward()
        return weight.grad

    expected = gradient()
    with gradients_in_place():
        found = gradient()
    # Sums of sixteen products, rounded to 16 bits once at the end.
    assert torch.equal(found, expected)
