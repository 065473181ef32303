"""What settings refuse whoever gives them, and what they resolve: the same from Python as from a run file."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from klimb.losses import Corrected, NoCorrection, Objective, SquaredResidual
from klimb.training import (
    AdvantageSettings,
    CheckpointError,
    CloningSettings,
    LoopSettings,
    Optimizer,
    OptimizerSettings,
    SourceSettings,
    TrainingSettings,
    reference_named,
)
from klimb.training.settings import CreditSettings, automatic_warmup


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(1, 1), (20, 2), (21, 3), (100, 10), (5_000, 10)])
def test_a_warm_up_of_auto_is_a_tenth_of_the_run_and_at_most_ten_steps(num_steps, warmup_steps):
    assert LoopSettings(training=TrainingSettings(num_steps=num_steps)).optimizer.warmup_steps == warmup_steps
    assert automatic_warmup(num_steps) == warmup_steps


@pytest.mark.parametrize("name", ["max_seconds", "max_generated_tokens", "max_training_seconds"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_a_limit_below_zero_or_no_number_is_an_error(name: str, value: float):
    with pytest.raises(ValueError, match=rf"{name} must be >= 0, or inf for no limit"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("epsilon", [0.0, -1e-8, math.nan])
def test_an_epsilon_that_is_not_above_zero_is_an_error(epsilon: float):
    with pytest.raises(ValueError, match="epsilon must be > 0"):
        OptimizerSettings(epsilon=epsilon)


def test_the_length_of_a_run_counts_every_epoch_and_minibatch():
    training = TrainingSettings(num_steps=3, num_epochs=2, num_minibatches=4)
    assert LoopSettings(training=training).optimizer.warmup_steps == 3  # a tenth of 24
    given = LoopSettings(training=training, optimizer=OptimizerSettings(warmup_steps=0))
    assert given.optimizer.warmup_steps == 0


def test_a_schedule_ends_with_the_run_unless_a_number_is_given_and_the_cloning_has_none():
    training = TrainingSettings(num_steps=3, num_epochs=2, num_minibatches=4)
    decaying = LoopSettings(training=training, optimizer=OptimizerSettings(schedule="linear")).optimizer
    assert (decaying.warmup_steps, decaying.schedule_steps) == (3, 24)
    given = LoopSettings(training=training, optimizer=OptimizerSettings(schedule="linear", schedule_steps=50))
    assert given.optimizer.schedule_steps == 50
    assert LoopSettings(training=training).optimizer.schedule_steps == "auto"
    cloning = CloningSettings().optimizer(decaying, num_pairs=90)
    assert (cloning.schedule, cloning.rate_fraction(10_000)) == ("constant", 1)


def test_the_cloning_before_a_run_has_a_warm_up_of_its_own_length():
    cloning = CloningSettings(num_epochs=2, batch_size=4, learning_rate=1e-4)
    made = cloning.optimizer(OptimizerSettings(kind="schedule-free", warmup_steps=7), num_pairs=90)
    assert (made.kind, made.learning_rate, made.warmup_steps) == ("schedule-free", 1e-4, 5)  # a tenth of 2 · 23
    assert replace(cloning, warmup_steps=0).optimizer(OptimizerSettings(), num_pairs=90).warmup_steps == 0


def test_an_optimizer_alone_does_not_guess_how_long_a_run_is(tiny_policy):
    with pytest.raises(ValueError, match="warmup_steps is 'auto', and an optimizer does not know how long a run is"):
        Optimizer(tiny_policy.trainable(), OptimizerSettings())


def test_a_run_resumed_for_longer_with_another_automatic_warm_up_is_refused_by_name(
    tiny_run, tiny_policy, tmp_path: Path
):
    short, longer = (
        replace(
            tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=num_steps), optimizer=OptimizerSettings()
        )
        for num_steps in (2, 20)
    )
    tiny_run.run(tiny_policy, tmp_path, short)
    with pytest.raises(CheckpointError, match="warmup_steps: 1 in the checkpoint, 8 now"):
        tiny_run.run(tiny_policy, tmp_path, longer, resume=True)


CLONING = {"advantages": AdvantageSettings(kind="zero", group_filter=False), "reference": reference_named("behaviour")}


@pytest.mark.parametrize(
    ("objective", "sections", "message"),
    [
        (Objective(divergence="rkl", beta=1.0, ratio="none", clip="none"), CLONING, "'rkl' lowers the probability"),
        (Objective(divergence="urkl", beta=1.0, ratio="none", clip="none"), CLONING, "'urkl' does nothing"),
        (Objective(beta=0.0, ratio="none", clip="none"), CLONING, "objective.beta is 0 and advantages.kind is 'zero'"),
        (Objective(beta=0.1), {"reference": reference_named("none")}, "a divergence needs a reference"),
        (SquaredResidual(beta=0.1, anchor="ref"), {"reference": reference_named("none")}, "needs a reference"),
        (
            Corrected(objective=Objective(beta=0.0), correction=NoCorrection(off_policy_mask=0.5)),
            {"advantages": AdvantageSettings(kind="group-soft-value")},
            "takes objective.beta as its temperature, and it is 0",
        ),
    ],
)
def test_what_cannot_act_is_refused_before_a_run_from_python_begins(
    tiny_run, tiny_policy, tmp_path: Path, objective, sections, message
):
    settings = replace(tiny_run.BASE, **sections)
    with pytest.raises(ValueError, match=message):
        tiny_run.run(tiny_policy, tmp_path / "run", settings, objective=objective)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"save_rollouts": False, "sources": SourceSettings(replay=0.5)}, "run.save_rollouts is off"),
        ({"sampling": {"lag": 1}, "sources": SourceSettings(log=0.5)}, "sampling.lag delays every batch as a whole"),
        ({"advantages": AdvantageSettings(kind="group-mean"), "credit": CreditSettings(kind="gae")}, "one a token"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(tiny_run, sections, message):
    sampling = replace(tiny_run.BASE.sampling, **sections.get("sampling", {}))
    with pytest.raises(ValueError, match=message):
        replace(tiny_run.BASE, **{**sections, "sampling": sampling})


@pytest.mark.parametrize(
    ("credit", "key"),
    [
        ({"whiten": True}, "whiten"),
        ({"kind": "reward-to-go", "gae_lambda": 0.5}, "gae_lambda"),
        ({"discount": 0.5}, "discount"),
    ],
)
def test_a_setting_of_the_credit_that_does_nothing_is_refused(credit, key):
    with pytest.raises(ValueError, match=f"credit.{key}.* does nothing with credit.kind"):
        CreditSettings(**credit)
