"""A disk that refuses, for a while or for good: what is written late, and what ends a run."""

import resource
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tests.training.test_resume import assert_same_run

from klimb.policies import load_policy
from klimb.training import (
    CheckpointError,
    CheckpointSettings,
    EvaluationSettings,
    newest_verified,
    read_evaluations,
    read_metrics,
)
from klimb.training import iteration as iteration_module
from klimb.training import loop as loop_module
from klimb.training.late_writes import MOST_WAITING, LateWrites
from klimb.training.metrics import MetricsLog

pytestmark = pytest.mark.usefixtures("without_shape_checks")

update_module = import_module("klimb.training.update")


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


class Disk:
    """Refuses while `is_full`; what is written is then in `taken`."""

    def __init__(self) -> None:
        self.is_full = False
        self.taken: list[str] = []

    def take(self, what: str) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.taken.append(what)


def test_what_the_disk_refused_is_written_later_in_order(caplog):
    disk, writes = Disk(), LateWrites()
    writes.do("first is", lambda: disk.take("first"))
    disk.is_full = True
    for name in ("second", "third"):
        writes.do(f"{name} is", lambda name=name: disk.take(name))
    writes.catch_up()  # nothing of it is needed by a resume
    assert disk.taken == ["first"]
    assert "second is NOT kept: [Errno 28] No space left on device" in caplog.text
    disk.is_full = False
    writes.do("fourth is", lambda: disk.take("fourth"))
    assert disk.taken == ["first", "second", "third", "fourth"]


def test_what_a_resume_needs_lets_no_checkpoint_pass_until_it_is_written():
    disk, writes = Disk(), LateWrites()
    disk.is_full = True
    writes.do("it is", lambda: disk.take("it"), is_needed=True)
    with pytest.raises(OSError, match="No space left"):
        writes.catch_up()
    disk.is_full = False
    writes.catch_up()
    assert disk.taken == ["it"]


def test_what_is_never_taken_is_told_at_the_end(caplog):
    disk, writes = Disk(), LateWrites()
    disk.is_full = True
    for number in range(MOST_WAITING + 2):
        writes.do(f"line {number} is", lambda: disk.take("it"))
    writes.close()
    assert f"{MOST_WAITING + 2} files or lines of the run are lost" in caplog.text


def failing(real, disk: Disk):
    def write(*arguments, **keywords):
        disk.take("")
        return real(*arguments, **keywords)

    return write


@pytest.mark.parametrize("variant", ["schedule-free-ema", "replayed"])
def test_a_disk_that_is_full_for_two_steps_changes_nothing_of_a_run(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
):
    disk = Disk()
    for module, name in (
        (iteration_module, "write_samples"),
        (loop_module, "save_checkpoint"),
        (loop_module, "append_evaluation"),
    ):
        monkeypatch.setattr(module, name, failing(getattr(module, name), disk))

    def tell(metrics, samples) -> None:
        disk.is_full = metrics["step"] in (2, 3)

    settings = replace(tiny_run.VARIANTS[variant], checkpoints=CheckpointSettings(every_steps=2))
    tiny_run.run(fresh_policy(), tmp_path, settings, on_step=tell)
    assert_same_run(undisturbed(variant), tmp_path)


def test_an_evaluation_that_was_refused_is_in_its_file_later(
    tiny_run, fresh_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk()
    monkeypatch.setattr(loop_module, "append_evaluation", failing(loop_module.append_evaluation, disk))

    def tell(metrics, samples) -> None:
        disk.is_full = metrics["step"] in (1, 2)

    settings = replace(tiny_run.BASE, evaluation=EvaluationSettings(every_steps=2, num_samples=2))
    tiny_run.run(fresh_policy(), tmp_path, settings, held_out=tiny_run.PROBLEMS[:2], on_step=tell)
    assert [made.step for made in read_evaluations(tmp_path / "evaluations.jsonl")] == [2, 4, 6]


def test_a_run_that_replays_saves_no_checkpoint_without_its_rollouts(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    disk = Disk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iteration_module, "write_samples", failing(iteration_module.write_samples, disk))
        with pytest.raises(CheckpointError, match="its last state could not be saved"):
            tiny_run.run(
                fresh_policy(),
                tmp_path,
                tiny_run.VARIANTS["replayed"],
                on_step=lambda metrics, _: setattr(disk, "is_full", metrics["step"] >= 3),
            )
    newest = newest_verified(tmp_path / "checkpoints")
    assert newest is not None and newest.name == "step-000002"
    tiny_run.run(fresh_policy(), tmp_path, tiny_run.VARIANTS["replayed"], resume=True)
    assert_same_run(undisturbed("replayed"), tmp_path)


def test_the_samples_of_a_skipped_step_may_be_refused(tiny_policy, tmp_path: Path, monkeypatch, caplog):
    disk = Disk()
    disk.is_full = True
    monkeypatch.setattr(update_module, "write_samples", failing(update_module.write_samples, disk))
    guard = update_module.NonFiniteGuard(tmp_path / "skipped", max_in_a_row=5)

    class Batch:
        samples = ()

    guard.watch(update_module.StepOutcome({}, 3, not_finite="loss"), Batch(), name="step-000001-e0-m0")
    assert guard.num_in_a_row == 1
    assert "the samples of the skipped step step-000001-e0-m0 are NOT kept" in caplog.text


def test_lines_that_wait_are_no_part_of_a_checkpoint(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
        for step in range(2000):  # more than any buffer of a file holds
            log.write({"step": float(step)})
        with pytest.raises(OSError, match="File too large"):
            log.flush_to_disk()
        assert log.num_bytes() == sum(len(f'{{"step": {float(step)}}}\n') for step in range(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.flush_to_disk() == (tmp_path / "metrics.jsonl").stat().st_size
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [float(step) for step in range(2000)]
