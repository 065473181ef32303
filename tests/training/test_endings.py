"""How a run ends, or goes on, when something is wrong."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.errors import Interrupted
from klimb.losses import Objective
from klimb.tasks import Problem, Response, Score
from klimb.training import (
    CheckpointError,
    CheckpointSettings,
    NonFiniteError,
    RunFolderInUse,
    newest_verified,
    read_metrics,
    run_folder_lock,
)
from klimb.training import loop as loop_module


class NoReward:
    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        return [Score(reward=None, reason="broken") for _ in responses]


def test_a_step_without_any_reward_is_no_update_and_no_crash(tiny_run, tiny_policy, tmp_path: Path):
    before = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    metrics = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=2)),
        scorer=NoReward(),
    ).metrics
    assert metrics["num_errors"] == metrics["num_samples"] == 16
    assert metrics["num_optimizer_steps"] == 0
    assert "reward_mean" not in metrics
    assert all(torch.equal(before[name], parameter) for name, parameter in tiny_policy.trainable().items())


class NotFinite:
    """An objective whose loss is not a number."""

    beta = 0.01
    needs_log_mu = needs_log_ref = True
    needs_log_prox = needs_entropy = False
    needs_minibatch = False

    def normalizer(self, mask: torch.Tensor) -> float:
        return 1.0

    def prepare(self, inputs):
        raise AssertionError("needs_minibatch is False")

    def __call__(self, inputs):
        return replace(Objective()(inputs), loss=inputs.log_pi.sum() * float("nan"))


def test_losses_that_stay_not_finite_end_the_run_with_their_batches_kept(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(
        tiny_run.BASE, training=replace(tiny_run.BASE.training, num_epochs=1, num_minibatches=1, max_skipped_steps=3)
    )
    with pytest.raises(NonFiniteError, match="3 steps in a row had a loss that is not finite"):
        tiny_run.run(tiny_policy, tmp_path, settings, objective=NotFinite())
    assert len(list((tmp_path / "skipped").glob("step-*.parquet"))) == 3
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["num_skipped_steps"] for line in lines] == [1, 1]
    # Where sampler and trainer stand apart could be the reason, so it is told.
    assert all(line["mismatch_mean_abs"] < 1e-4 for line in lines)
    assert all(bool(parameter.isfinite().all()) for parameter in tiny_policy.trainable().values())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_tells_the_status(tiny_run, tiny_policy, tmp_path: Path, number, status):
    before = signal.getsignal(number)

    def interrupt(metrics, samples) -> None:
        if metrics["step"] == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="saved after step 3; resume") as raised:
        tiny_run.run(tiny_policy, tmp_path, tiny_run.BASE, on_step=interrupt)
    assert raised.value.status == status
    newest = newest_verified(tmp_path / "checkpoints")
    assert newest is not None and newest.name == "step-000003"
    assert signal.getsignal(number) == before


def test_a_signal_during_preparation_ends_before_the_first_step(tiny_run, tiny_policy, tmp_path: Path):
    with pytest.raises(Interrupted, match="step 0"):
        tiny_run.run(tiny_policy, tmp_path, tiny_run.BASE, prepare=lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_folder_with_a_run_is_not_written_over(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1))
    tiny_run.run(tiny_policy, tmp_path, settings)
    with pytest.raises(CheckpointError, match="holds a run already; resume it, or choose another folder"):
        tiny_run.run(tiny_policy, tmp_path, settings)


def test_two_runs_in_one_folder_are_refused(tiny_run, tiny_policy, tmp_path: Path):
    with run_folder_lock(tmp_path), pytest.raises(RunFolderInUse, match="is in use by process"):
        tiny_run.run(tiny_policy, tmp_path, tiny_run.BASE)


def test_a_save_that_fails_keeps_the_old_one_goes_on_and_tries_again(
    tiny_run, tiny_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    real, attempts = loop_module.save_checkpoint, []

    def failing(folder: Path, step: int, content, **keywords) -> Path:
        attempts.append(step)
        if step in (4, 5):
            raise OSError(28, "No space left on device")
        return real(folder, step, content, **keywords)

    monkeypatch.setattr(loop_module, "save_checkpoint", failing)
    settings = replace(tiny_run.BASE, checkpoints=CheckpointSettings(every_steps=2, keep=9))
    result = tiny_run.run(tiny_policy, tmp_path, settings)
    assert attempts == [2, 4, 5, 6]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000006"]
    assert result.checkpoint is not None and result.checkpoint.name == "step-000006"
    assert "the checkpoint of step 4 is NOT saved: [Errno 28] No space left on device" in caplog.text


def test_a_disk_that_never_recovers_is_an_error_at_the_end(
    tiny_run, tiny_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def failing(*arguments, **keywords) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(loop_module, "save_checkpoint", failing)
    with pytest.raises(CheckpointError, match="its last state could not be saved"):
        tiny_run.run(
            tiny_policy, tmp_path, replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=3))
        )
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_rollouts_that_cannot_be_kept_do_not_stop_training(tiny_run, tiny_policy, tmp_path: Path, caplog):
    (tmp_path / "rollouts").write_text("in the way")
    tiny_run.run(tiny_policy, tmp_path, replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=2)))
    assert "rollouts of step 2 are NOT kept" in caplog.text


def test_time_can_end_a_run_as_its_last_step_would(tiny_run, tiny_policy, tmp_path: Path):
    result = tiny_run.run(
        tiny_policy,
        tmp_path,
        replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1000, max_seconds=0.5)),
    )
    assert 1 <= result.num_steps < 1000
    assert result.checkpoint is not None and result.checkpoint.name == f"step-{result.num_steps:06d}"
