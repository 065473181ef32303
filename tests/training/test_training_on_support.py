"""Training on top-p samples with their recorded support: π is μ before the first step, and everybody scores alike."""

from dataclasses import replace

import pytest
import torch
from tests.training.tiny_run import BASE, run

from klimb.experience import SamplingSettings, collate, read_samples
from klimb.losses import AutomaticCorrection, DecoupledCorrection, NoCorrection, Objective
from klimb.losses.settings import ObjectiveSettings
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.training import Optimizer, OptimizerSettings, reference_named
from klimb.training.minibatches import score_batch, score_samples
from klimb.training.settings.fit import choose_correction, why_centred
from klimb.training.update import optimizer_step

CUT = replace(BASE, sampling=replace(BASE.sampling, top_p=0.7, record_support=True))
CLIPPED = ObjectiveSettings(clip="dual")


def drawn_samples(policy, folder, settings=CUT, **changes):
    """The rollouts of a run of one step."""
    once = replace(settings, training=replace(settings.training, num_steps=1))
    arguments = {"sampler": LocalSampler(policy, record_support=True), "objective": Objective(beta=0.01)} | changes
    run(policy, folder, once, **arguments)
    return read_samples(folder / "rollouts" / "step-000001.parquet")


def test_recorded_support_makes_top_p_sampling_on_policy():
    assert CUT.draws_from_policy
    assert choose_correction(AutomaticCorrection(), CUT, CLIPPED) == NoCorrection()
    unrecorded = replace(CUT, sampling=replace(CUT.sampling, record_support=False))
    assert not unrecorded.draws_from_policy
    assert why_centred(unrecorded, CLIPPED) == "sampling.top_p = 0.7"
    assert isinstance(choose_correction(AutomaticCorrection(), unrecorded, CLIPPED), DecoupledCorrection)


def test_what_is_no_cut_still_makes_another_policy():
    warmer = replace(CUT, temperature=1.3)
    assert warmer.why_drawn_otherwise == "sampling.temperature = 1, the policy's is 1.3"
    penalised = replace(CUT, sampling=replace(CUT.sampling, repetition_penalty=1.2))
    assert penalised.why_drawn_otherwise == "sampling.repetition_penalty = 1.2"
    # A minimum length alone is not recorded.
    held = replace(BASE, sampling=replace(BASE.sampling, min_new_tokens=2, record_support=True))
    assert held.why_drawn_otherwise == "sampling.min_new_tokens = 2"
    both = replace(CUT, sampling=replace(CUT.sampling, min_new_tokens=2))
    assert both.draws_from_policy


def test_before_the_first_step_every_ratio_is_one_and_the_plain_one_is_below(tiny_policy, tmp_path):
    policy = tiny_policy
    before = {name: weight.detach().clone() for name, weight in policy.trainable().items()}
    samples = drawn_samples(policy, tmp_path / "run")
    assert all(sample.support is not None for sample in samples)
    assert any(len(kept) > 1 for sample in samples for kept in sample.support)
    for name, weight in policy.trainable().items():
        weight.data.copy_(before[name])
    batch = collate(samples)
    log_pi = score_batch(policy, batch, max_tokens=64)
    torch.testing.assert_close(log_pi[batch.mask], batch.log_mu[batch.mask], rtol=0, atol=2e-5)
    plain = score_batch(policy, collate(samples, on_support=False), max_tokens=64)
    assert float((plain - batch.log_mu)[batch.mask].mean()) < -0.1
    # The reference drew them, so log_ref is μ on the support.
    assert all(sample.log_ref == sample.log_mu for sample in samples)


def test_a_run_measures_no_gap_and_an_untouched_policy_on_its_support(tiny_policy, tmp_path):
    metrics = []
    settings = replace(CUT, training=replace(CUT.training, num_steps=1, num_epochs=1, num_minibatches=1))
    run(
        tiny_policy,
        tmp_path / "run",
        settings,
        sampler=LocalSampler(tiny_policy, record_support=True),
        on_step=lambda found, samples: metrics.append(found),
    )
    assert metrics[0]["w_mean"] == pytest.approx(1, abs=1e-5)
    assert metrics[0]["mismatch_mean_abs"] < 1e-5
    assert metrics[0]["kl_pi_ref"] == pytest.approx(0, abs=1e-5)


def test_log_mu_can_be_recomputed_on_the_support(tiny_policy, tmp_path):
    recomputed = replace(CUT, training=replace(CUT.training, log_mu="recomputed"))
    samples = drawn_samples(tiny_policy, tmp_path / "run", recomputed)
    assert {sample.log_mu_provenance for sample in samples} == {"recomputed"}
    with pytest.raises(ValueError, match="record_support = true"):
        replace(recomputed, sampling=replace(CUT.sampling, record_support=False))


def test_a_frozen_reference_scores_on_the_support_of_a_policy_that_has_moved(tiny_policy, tiny_model_path, tmp_path):
    fixed = replace(CUT, reference=reference_named("fixed"), training=replace(CUT.training, num_steps=2))
    run(tiny_policy, tmp_path / "run", fixed, sampler=LocalSampler(tiny_policy, record_support=True))
    samples = read_samples(tmp_path / "run" / "rollouts" / "step-000002.parquet")
    untouched = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    expected = score_samples(untouched, samples, max_tokens=4096)
    for sample, log_ref in zip(samples, expected, strict=True):
        assert sample.log_ref == pytest.approx(log_ref, abs=1e-5)
        assert sample.log_ref != pytest.approx(sample.log_mu, abs=1e-3)


def test_samples_with_and_without_support_share_a_step(tiny_policy, tmp_path):
    samples = drawn_samples(tiny_policy, tmp_path / "run")[:4]
    mixed = [samples[0], replace(samples[1], support=None), samples[2], replace(samples[3], support=None)]
    scores = score_samples(tiny_policy, mixed, max_tokens=4096)
    alone = [score_samples(tiny_policy, [sample], max_tokens=4096)[0] for sample in mixed]
    for together, single in zip(scores, alone, strict=True):
        assert together == pytest.approx(single, abs=1e-5)
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(learning_rate=1e-3, warmup_steps=0))
    batch = collate([replace(sample, log_ref=None) for sample in mixed], torch.tensor([1.0, -1.0, 1.0, -1.0]))
    with optimizer.gradient_point():
        outcome = optimizer_step(tiny_policy, optimizer, Objective(beta=0.0, clip="none"), batch)
    assert not outcome.not_finite
    assert outcome.metrics["grad_norm"] > 0


def test_a_loss_without_a_ratio_scores_all_tokens(tiny_policy, tmp_path):
    # Maximum likelihood of what was said: the gradient must reach tokens that were cut off.
    objective = Objective(beta=0.0, clip="none", ratio="none")
    assert not objective.needs_log_mu
    samples = drawn_samples(tiny_policy, tmp_path / "run", objective=objective)
    assert all(sample.log_ref is None or sample.log_ref != sample.log_mu for sample in samples)


def test_a_sampler_that_records_nothing_is_refused(tiny_policy, tmp_path):
    class Silent:
        def sample(self, prompts, **options):
            return LocalSampler(tiny_policy).sample(prompts, **options)

    with pytest.raises(ValueError, match=r"sampling\.record_support is on, and 16 of 16 samples came without"):
        drawn_samples(tiny_policy, tmp_path / "run", sampler=Silent())


def test_settings_that_cut_nothing_record_nothing():
    assert not SamplingSettings(temperature=0.7, min_new_tokens=2).has_support
    assert not replace(BASE.sampling, record_support=True).records_support
    assert SamplingSettings(top_k=5).has_support
    assert not SamplingSettings(top_k=5, temperature=0).has_support
