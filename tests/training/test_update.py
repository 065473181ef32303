from pathlib import Path

import pytest
import torch

from klimb.experience import Sample, collate, read_samples
from klimb.losses import Objective
from klimb.training import (
    NonFiniteError,
    Optimizer,
    OptimizerSettings,
    StepOutcome,
    TrainingSettings,
    score_samples,
    update,
)
from klimb.training.update import NonFiniteGuard


def batch_of(policy, num_groups: int = 3):
    samples = [
        Sample(
            sample_id=f"{group}-{index}",
            group_id=f"g{group}",
            prompt=(),
            prompt_ids=(5, 6, 7 + group),
            response="",
            response_ids=(8 + index, 20 + group),
            finish_reason="stop",
            log_mu=(-4.0, -4.0),
            log_mu_provenance="sampler",
            log_ref=(-4.0, -4.0),
        )
        for group in range(num_groups)
        for index in range(2)
    ]
    return collate(samples, torch.tensor([1.0, -1.0] * num_groups))


def run(policy, optimizer, settings, seen):
    return update(
        policy,
        optimizer,
        Objective(beta=0.01),
        batch_of(policy),
        settings=settings,
        generator=torch.Generator().manual_seed(0),
        on_outcome=lambda outcome, part, name: seen.append((name, len(part), outcome)),
    )


def test_epochs_times_minibatches_are_the_steps(tiny_policy):
    seen: list = []
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(learning_rate=1e-3, warmup_steps=10))
    metrics = run(tiny_policy, optimizer, TrainingSettings(num_epochs=2, num_minibatches=3), seen)
    assert [name for name, _, _ in seen] == ["e0-m0", "e0-m1", "e0-m2", "e1-m0", "e1-m1", "e1-m2"]
    assert {rows for _, rows, _ in seen} == {2}
    assert optimizer.num_steps == metrics["num_optimizer_steps"] == 6
    assert metrics["num_tokens_trained"] == 2 * 12
    assert metrics["num_skipped_steps"] == 0


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_the_policy_is_scored_at_y_inside_and_left_at_x(tiny_policy, kind: str):
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(kind=kind, learning_rate=0.01, warmup_steps=0))
    seen: list = []
    run(tiny_policy, optimizer, TrainingSettings(num_epochs=3), seen)
    at_x = score_samples(tiny_policy, batch_of(tiny_policy).samples, max_tokens=1000)
    with optimizer.gradient_point():
        at_y = score_samples(tiny_policy, batch_of(tiny_policy).samples, max_tokens=1000)
    differ = max(abs(x - y) for one, other in zip(at_x, at_y, strict=True) for x, y in zip(one, other, strict=True))
    assert (differ > 1e-3) == (kind == "schedule-free")


def test_a_step_that_is_not_finite_keeps_its_batch_and_a_good_one_resets_the_count(tiny_policy, tmp_path: Path, caplog):
    guard, batch = NonFiniteGuard(tmp_path / "skipped", max_in_a_row=2), batch_of(tiny_policy)
    guard.watch(StepOutcome({}, 3, not_finite="loss"), batch, name="step-000001-e0-m0")
    assert guard.num_in_a_row == 1
    assert read_samples(tmp_path / "skipped" / "step-000001-e0-m0.parquet") == list(batch.samples)
    assert "the loss is not finite: step skipped" in caplog.text
    guard.watch(StepOutcome({"loss": 1.0}, 3), batch, name="step-000002-e0-m0")
    assert guard.num_in_a_row == 0


def test_too_many_in_a_row_end_the_run_with_where_to_look(tiny_policy, tmp_path: Path):
    guard, batch = NonFiniteGuard(tmp_path, max_in_a_row=2), batch_of(tiny_policy)
    guard.watch(StepOutcome({}, 3, not_finite="gradient"), batch, name="step-000001-e0-m0")
    guard.watch(StepOutcome({}, 0), batch, name="nothing to learn is neither good nor bad")
    with pytest.raises(NonFiniteError, match=r"2 steps in a row had a gradient.*step-000002-e0-m0\.parquet"):
        guard.watch(StepOutcome({}, 3, not_finite="gradient"), batch, name="step-000002-e0-m0")


def test_skipped_steps_are_counted_and_left_out_of_the_means(tiny_policy):
    optimizer = Optimizer(tiny_policy.trainable(), OptimizerSettings(warmup_steps=10))
    weight = next(iter(tiny_policy.trainable().values()))
    calls = iter(range(10))
    weight.register_hook(lambda gradient: gradient * (float("nan") if next(calls) == 0 else 1.0))
    metrics = run(tiny_policy, optimizer, TrainingSettings(num_minibatches=3), [])
    assert metrics["num_skipped_steps"] == 1
    assert metrics["num_optimizer_steps"] == 2
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("name", ["num_epochs", "num_minibatches", "max_skipped_steps"])
def test_bad_settings_are_named(name: str):
    with pytest.raises(ValueError, match=name):
        TrainingSettings(**{name: -1})
