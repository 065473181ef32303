"""The gap between the sampler's and the trainer's log-probabilities."""

import math

import pytest
import torch

from klimb.training.mismatch import sampler_trainer_mismatch


def test_gap_of_known_differences():
    log_model = torch.tensor([[-1.0, -2.0], [-3.0, 7.0]])
    log_pi = torch.tensor([[-0.5, -3.0], [-3.0, math.nan]])
    mask = torch.tensor([[True, True], [True, False]])
    gap = sampler_trainer_mismatch(log_model, log_pi, mask)
    # Δ = 0.5, −1, 0: the largest in size is the negative one.
    assert gap["mismatch_mean_abs"] == pytest.approx(0.5)
    assert gap["mismatch_max_abs"] == pytest.approx(1.0)
    assert gap["mismatch_k3"] == pytest.approx(((math.exp(0.5) - 1.5) + math.exp(-1)) / 3)


def test_gap_is_zero_for_equal_log_probs():
    log_probs = torch.randn(3, 4)
    gap = sampler_trainer_mismatch(log_probs, log_probs, torch.ones(3, 4, dtype=torch.bool))
    assert gap == {"mismatch_mean_abs": 0.0, "mismatch_max_abs": 0.0, "mismatch_k3": 0.0}


def test_k3_keeps_its_digits_at_rounding_sized_differences():
    # exp(Δ) − 1 − Δ = Δ²/2 + Δ³/6: 5e-11 at Δ = 1e-5, where exp(Δ) − 1, rounded at 1e-16, would be off by 2e-6 of it.
    log_model = torch.zeros(1, 1, dtype=torch.float64)
    gap = sampler_trainer_mismatch(log_model, log_model + 1e-5, torch.ones(1, 1, dtype=torch.bool))
    assert gap["mismatch_k3"] == pytest.approx(5e-11 + 1e-15 / 6, rel=1e-8, abs=0)


def test_gap_averages_to_the_kl_of_sampler_to_trainer_when_tokens_come_from_the_sampler():
    sampler = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    trainer = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    counts = (sampler * 10).round().long()
    tokens = torch.arange(3).repeat_interleave(counts)[None]
    gap = sampler_trainer_mismatch(
        sampler.log()[tokens], trainer.log()[tokens], torch.ones_like(tokens, dtype=torch.bool)
    )
    assert gap["mismatch_k3"] == pytest.approx((sampler * (sampler / trainer).log()).sum().item())


def test_a_counted_nan_shows():
    log_model = torch.zeros(1, 2)
    log_pi = torch.tensor([[0.0, math.nan]])
    assert math.isnan(
        sampler_trainer_mismatch(log_model, log_pi, torch.ones(1, 2, dtype=torch.bool))["mismatch_mean_abs"]
    )


def test_an_empty_mask_is_an_error():
    zeros = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="counts no token"):
        sampler_trainer_mismatch(zeros, zeros, torch.zeros(1, 2, dtype=torch.bool))
