"""The same tensors through TRL's own `_compute_loss`, of GRPO and of DPO: loss and gradient to 1e-6."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from klimb.losses import (
    Corrected,
    DualClip,
    Inputs,
    Loss,
    MaskedCorrection,
    NoCorrection,
    PairwiseLoss,
    Truncate,
    TruncatedCorrection,
)
from klimb.training import RECIPES

trl = pytest.importorskip("trl", reason="the comparison needs trl (the extra `dev`)")

CLOSE = {"atol": 1e-6, "rtol": 1e-6}
LONGEST = 9


def tensors():
    """Log-probabilities that reach every branch of the clips, float32 as in training."""
    generator = torch.Generator().manual_seed(3)
    log_mu = -2 * torch.rand(8, 6, generator=generator)
    log_pi = log_mu + 0.4 * torch.randn(8, 6, generator=generator)
    log_ref = log_mu + 0.3 * torch.randn(8, 6, generator=generator)
    log_prox = log_mu + 0.8 * torch.randn(8, 6, generator=generator)
    advantages = torch.tensor([1.2, -0.7, 0.4, -1.5, 0.9, -0.2, 0.6, -0.7])
    mask = torch.arange(6) < torch.tensor([6, 5, 1, 2, 6, 3, 4, 6])[:, None]
    return log_pi, log_mu, log_ref, log_prox, advantages, mask


def trainer(loss_type: str, log_pi: torch.Tensor, **settings) -> trl.GRPOTrainer:
    """A trainer that never was started: it knows what `_compute_loss` reads, and its model says log_pi."""
    made = object.__new__(trl.GRPOTrainer)
    defaults = {
        "loss_type": loss_type,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "aux_loss_enabled": False,
        "use_vllm": False,
        "vllm_importance_sampling_correction": True,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": LONGEST,
        "_entropy_bonus_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        "accelerator": SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (log_pi, torch.zeros_like(log_pi), None),
    }
    made.__dict__.update(defaults | settings)
    return made


def of_trl(loss_type: str, extra=None, *, old=None, **settings) -> tuple[torch.Tensor, torch.Tensor]:
    """TRL's loss and its gradient with respect to log_pi; `old` stands in the denominator of its ratio."""
    log_pi, log_mu, log_ref, _, advantages, mask = tensors()
    leaf = log_pi.requires_grad_()
    ids = torch.zeros(8, 6, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": log_mu if old is None else old,
        "ref_per_token_logps": log_ref,
        "num_items_in_batch": mask.sum(),
    }
    loss = trainer(loss_type, leaf, **settings)._compute_loss(None, inputs | (extra or {}))
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def of_klimb(objective: Loss, **options) -> tuple[torch.Tensor, torch.Tensor]:
    log_pi, log_mu, log_ref, log_prox, advantages, mask = tensors()
    leaf = log_pi.requires_grad_()
    prox = log_prox if objective.needs_log_prox else None
    loss = objective(leaf, log_mu, log_ref, advantages, mask, log_prox=prox, **options).loss
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


RIVALS = {
    "grpo": ("grpo", {"beta": 0.04}),
    "dapo": ("dapo", {"epsilon_high": 0.28}),
    "dr-grpo": ("dr_grpo", {}),
    "gspo": ("grpo", {"epsilon_low": 3e-4, "epsilon_high": 4e-4, "importance_sampling_level": "sequence"}),
    "cispo": ("cispo", {"epsilon_high": 5.0}),
}
FIXED = {"dr-grpo": {"reduce": LONGEST}}


@pytest.mark.parametrize("name", RIVALS)
def test_a_recipe_has_trls_loss_and_gradient(name: str):
    loss_type, settings = RIVALS[name]
    loss, gradient = of_klimb(RECIPES[name].make_objective(**FIXED.get(name, {})))
    theirs, their_gradient = of_trl(loss_type, **settings)
    torch.testing.assert_close(loss, theirs, **CLOSE)
    torch.testing.assert_close(gradient, their_gradient, **CLOSE)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "clip", "bounds"),
    [
        ("gspo", DualClip(0.05, 0.1, math.inf), {"epsilon_low": 0.05, "epsilon_high": 0.1}),
        ("cispo", Truncate(1.0, 0.1), {"epsilon_high": 1.1}),
    ],
)
def test_they_agree_where_some_units_are_clipped_and_others_not(name, clip, bounds):
    """The recipes' own bounds are so narrow or so wide that all units, or none, would be."""
    loss_type, settings = RIVALS[name]
    objective = RECIPES[name].make_objective(clip=clip)
    loss, gradient = of_klimb(objective)
    theirs, their_gradient = of_trl(loss_type, **(settings | bounds))
    torch.testing.assert_close(loss, theirs, **CLOSE)
    torch.testing.assert_close(gradient, their_gradient, **CLOSE)
    log_pi, log_mu, _, _, advantages, mask = tensors()
    metrics = objective(log_pi, log_mu, None, advantages, mask).metrics
    assert 0.1 < metrics["clip_low_fraction"] + metrics["clip_high_fraction"] < 0.9


@pytest.mark.parametrize(
    ("correction", "theirs"),
    [
        (TruncatedCorrection(high=2.0), lambda b: b.clamp(max=2.0)),
        (MaskedCorrection(low=0.5, high=5.0), lambda b: torch.where((b < 0.5) | (b > 5.0), 0.0, b)),
    ],
    ids=["truncate", "mask"],
)
def test_a_correction_is_trls_weight_of_sampler_mismatch(correction, theirs):
    """TRL: old (its trainer's policy at the start) over the sampler's, times the loss; here prox over μ."""
    _, log_mu, _, log_prox, _, _ = tensors()
    weight = theirs((log_prox - log_mu).exp())
    loss, gradient = of_klimb(Corrected(objective=RECIPES["dapo"].make_objective(), correction=correction))
    extra = {"importance_sampling_ratio": weight}
    expected, expected_gradient = of_trl("dapo", extra, old=log_prox, use_vllm=True, epsilon_high=0.28)
    torch.testing.assert_close(loss, expected, **CLOSE)
    torch.testing.assert_close(gradient, expected_gradient, **CLOSE)


def test_the_off_policy_mask_leaves_out_the_responses_that_trls_does():
    masked = Corrected(objective=RECIPES["dapo"].make_objective(), correction=NoCorrection(off_policy_mask=0.05))
    loss, gradient = of_klimb(masked)
    expected, expected_gradient = of_trl("dapo", off_policy_mask_threshold=0.05, epsilon_high=0.28)
    torch.testing.assert_close(loss, expected, **CLOSE)
    torch.testing.assert_close(gradient, expected_gradient, **CLOSE)
    assert not torch.equal(gradient, of_klimb(RECIPES["dapo"].make_objective())[1])


def of_dpo_trainer(loss_type: str, log_pi, log_ref, mask, **settings):
    """Loss, gradient and metrics of TRL's DPO on four pairs: the better answers first, then the worse ones."""
    made = object.__new__(trl.DPOTrainer)
    zeros = torch.zeros(8, 6)
    leaf = torch.where(mask, log_pi, 0.0).requires_grad_()
    said = SimpleNamespace(log_probs=leaf, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())

    class Model(SimpleNamespace):
        def __call__(self, **inputs):
            return said

    defaults = {
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "use_weighting": False,
        "precompute_ref_logps": True,
        "f_divergence_type": "reverse_kl",
        "loss_types": [loss_type],
        "loss_weights": [1.0],
        "beta": 0.3,
        "label_smoothing": 0.0,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "accelerator": SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
    }
    made.__dict__.update(defaults | settings)
    ref = torch.where(mask, log_ref, 0.0).sum(1)
    inputs = {
        "completion_mask": torch.cat([torch.zeros(8, 1), mask.float()], dim=1),
        "input_ids": torch.zeros(8, 7, dtype=torch.int64),
        "attention_mask": torch.ones(8, 7),
        "ref_chosen_logps": ref[:4],
        "ref_rejected_logps": ref[4:],
    }
    loss = made._compute_loss(Model(), inputs, return_outputs=False)
    metrics = {name: values[0] for name, values in made._metrics["train"].items()}
    return loss.detach(), torch.autograd.grad(loss, leaf)[0], metrics


@pytest.mark.parametrize(
    ("loss_type", "settings", "ours"),
    [
        ("sigmoid", {}, PairwiseLoss(beta=0.3)),
        ("sigmoid", {"f_divergence_type": "forward_kl"}, PairwiseLoss(beta=0.3, divergence="fkl")),
        ("sigmoid", {"f_divergence_type": "js_divergence"}, PairwiseLoss(beta=0.3, divergence="2*jensen-shannon")),
        ("ipo", {}, PairwiseLoss(form="ipo", beta=0.3, level="sequence-mean")),
    ],
    ids=["dpo", "forward KL", "Jensen-Shannon", "ipo by length"],
)
def test_pairs_agree_with_trl(loss_type, settings, ours):
    log_pi, _, log_ref, _, _, mask = tensors()
    loss, gradient, metrics = of_dpo_trainer(loss_type, log_pi, log_ref, mask, **settings)
    rewards, groups = torch.tensor([1.0] * 4 + [0.0] * 4), torch.arange(8) % 4
    leaf = log_pi.requires_grad_()
    prepared, ready = ours.prepare(Inputs(leaf.detach(), None, log_ref, rewards, mask, groups=groups))
    out = prepared(Inputs(leaf, None, log_ref, ready.advantages, mask))
    torch.testing.assert_close(out.loss.detach(), loss, **CLOSE)
    torch.testing.assert_close(torch.autograd.grad(out.loss, leaf)[0], gradient * mask, **CLOSE)
    assert out.metrics["pair_accuracy"] == metrics["rewards/accuracies"]
    if "f_divergence_type" not in settings and loss_type == "sigmoid":
        assert out.metrics["pair_margin"] == pytest.approx(metrics["rewards/margins"], abs=1e-6)
