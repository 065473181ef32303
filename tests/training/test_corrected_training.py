"""Trust regions and corrections inside a run, where prox and the minibatch are the loop's to provide."""

from dataclasses import replace
from pathlib import Path

import pytest

from klimb.losses import Corrected, NormalisedCorrection, SecondMoment, TruncatedCorrection
from klimb.training import (
    RECIPES,
    AdvantageSettings,
    LoopSettings,
    OptimizerSettings,
    RolloutSettings,
    TrainingSettings,
    read_metrics,
)

SETTINGS = LoopSettings(
    training=TrainingSettings(num_steps=4, num_mismatch_rows=0),
    advantages=AdvantageSettings(group_filter=False),
    sampling=RolloutSettings(num_prompts=4, num_samples=6, max_new_tokens=6),
    optimizer=OptimizerSettings(learning_rate=2e-2, weight_decay=0.0, warmup_steps=1),
)


def test_prox_is_the_policy_at_the_start_of_the_update_and_mu_who_drew(tiny_run, tiny_policy, tmp_path: Path):
    """One optimizer step a batch: π = prox when the gradient is taken, and a collection's step lies before both."""
    settings = replace(SETTINGS, sampling=replace(SETTINGS.sampling, lag=1))
    objective = Corrected(objective=RECIPES["dapo"].make_objective(), correction=TruncatedCorrection(level="sequence"))
    tiny_run.run(tiny_policy, tmp_path, settings, objective=objective)
    last = list(read_metrics(tmp_path / "metrics.jsonl"))[-1]
    assert last["kl_prox_pi"] == pytest.approx(0, abs=1e-9)
    assert last["prox_w_max"] == pytest.approx(1, abs=1e-4)
    assert last["kl_mu_pi"] > 1e-3
    assert last["behaviour_ess"] < 0.99


def test_of_fresh_samples_prox_is_mu_and_whole_minibatches_are_fitted(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(SETTINGS, training=replace(SETTINGS.training, num_steps=2, num_epochs=2, num_minibatches=2))
    inner = RECIPES["m2po"].make_objective(clip=SecondMoment(1e-5))
    tiny_run.run(
        tiny_policy, tmp_path, settings, objective=Corrected(objective=inner, correction=NormalisedCorrection())
    )
    last = list(read_metrics(tmp_path / "metrics.jsonl"))[-1]
    assert last["kl_prox_pi"] > 1e-4
    assert last["kl_mu_pi"] == pytest.approx(last["kl_prox_pi"], rel=1e-2)
    assert last["behaviour_w_max"] == pytest.approx(1, abs=1e-3)
    assert 0.1 < last["clip_low_fraction"] + last["clip_high_fraction"] < 1
