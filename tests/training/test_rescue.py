"""An error anywhere in a step leaves the last complete step saved, and a resume gives the undisturbed run."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests.training.test_resume import assert_same_run

from klimb.losses import Objective
from klimb.policies import Snapshot, load_policy
from klimb.samplers import LocalSampler
from klimb.training import (
    CheckpointSettings,
    CreditSettings,
    Critic,
    EvaluationSettings,
    newest_verified,
    read_metrics,
    reference_named,
)
from klimb.training import iteration as iteration_module
from klimb.training import loop as loop_module
from klimb.training.metrics import MetricsLog
from klimb.training.optimizers import Optimizer
from klimb.training.reference_rules import Reference
from klimb.training.rescue import NothingToSave, Rescue
from klimb.training.sources.replay import ReplayBuffer

pytestmark = pytest.mark.usefixtures("without_shape_checks")

FAILING_STEP = 4

update_module = import_module("klimb.training.update")  # the package's `update` is the function


@dataclass
class Fault:
    """Fails once: in `FAILING_STEP`, at the n-th call of whatever it is put around."""

    patch: pytest.MonkeyPatch
    error: BaseException = field(default_factory=lambda: RuntimeError("as injected"))
    step: int = 0
    has_failed: bool = False

    def __post_init__(self) -> None:
        real = loop_module.iterate

        def iterate(state, *arguments):
            self.step = state.step + 1
            return real(state, *arguments)

        self.patch.setattr(loop_module, "iterate", iterate)

    def put_around(self, place: object, name: str, *, call: int = 1, is_after: bool = False) -> None:
        real, calls = getattr(place, name), [0]

        def wrapped(*arguments, **keywords):
            is_due = self.step == FAILING_STEP and not self.has_failed
            calls[0] += is_due
            if is_due and calls[0] == call:
                self.has_failed = True
                if is_after:
                    real(*arguments, **keywords)
                raise self.error
            return real(*arguments, **keywords)

        self.patch.setattr(place, name, wrapped)


def halfway(name: str) -> Callable[[Fault], None]:
    """Fails inside the optimizer, when some of the parameters have moved."""

    def put(fault: Fault) -> None:
        real = Optimizer.step

        def step(self, **keywords) -> None:
            if fault.step == FAILING_STEP and not fault.has_failed:
                fault.has_failed = True
                self._before_change()
                with torch.no_grad():
                    first = next(iter(self._parameters.values()))
                    first.add_(1.0)
                raise fault.error
            real(self, **keywords)

        fault.patch.setattr(Optimizer, "step", step)

    return put


PLACES: dict[str, Callable[[Fault], None]] = {
    "sampling": lambda fault: fault.put_around(LocalSampler, "stream"),
    "rollouts": lambda fault: fault.put_around(iteration_module, "next_batch", is_after=True),
    "reference-before": lambda fault: fault.put_around(Reference, "follow"),
    "reference-after": lambda fault: fault.put_around(Reference, "follow", is_after=True),
    "log-ref": lambda fault: fault.put_around(iteration_module, "_attach_log_ref"),
    "advantages": lambda fault: fault.put_around(iteration_module, "assign_advantages"),
    "first-backward": lambda fault: fault.put_around(update_module, "_backward"),
    "third-backward": lambda fault: fault.put_around(update_module, "_backward", call=3),
    "before-optimizer-step": lambda fault: fault.put_around(Optimizer, "step"),
    "inside-optimizer-step": halfway("step"),
    "after-optimizer-step": lambda fault: fault.put_around(Optimizer, "step", is_after=True),
    "after-third-optimizer-step": lambda fault: fault.put_around(Optimizer, "step", call=3, is_after=True),
    "after-update": lambda fault: fault.put_around(iteration_module, "update", is_after=True),
    "replay": lambda fault: fault.put_around(ReplayBuffer, "add"),
    "evaluation": lambda fault: fault.put_around(loop_module, "evaluate_and_record"),
    "keeping-rollouts": lambda fault: fault.put_around(loop_module, "keep_rollouts"),
    "after-keeping-rollouts": lambda fault: fault.put_around(loop_module, "keep_rollouts", is_after=True),
    "metrics-line": lambda fault: fault.put_around(MetricsLog, "write"),
}
"""Name -> puts the fault there. All come before the step is complete."""

SLOW_PLACES = {
    "reference-before", "log-ref", "advantages", "first-backward", "before-optimizer-step", "after-optimizer-step",
    "rollouts", "keeping-rollouts",
}  # fmt: skip
"""What they leave behind is what a place right beside them leaves, or the campaign's points of that name."""

PLACES_OF_KINDS = {
    "iterative": "sampling",
    "threshold-recomputed": "inside-optimizer-step",
    "delayed": "after-update",
    "every-10-filtered": "metrics-line",
}
"""Variant -> the place that is tried in every kind of run; the other pairs are slow."""


def marked(*values: str, is_slow: bool):
    return pytest.param(*values, marks=pytest.mark.slow if is_slow else ())


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


def fail_and_resume(tiny_run, fresh_policy, folder: Path, settings, put, **keywords):
    """Run into the fault, look at what it left, then go on to the end without it; return what the fault left."""
    settings = replace(settings, checkpoints=CheckpointSettings(every_steps=20))
    error = keywords.pop("error", RuntimeError("as injected"))
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, error)
        put(fault)
        with pytest.raises(type(error)) as raised:
            tiny_run.run(fresh_policy(), folder, settings, **keywords)
        assert fault.has_failed
    left = json.loads((folder / "ending.json").read_text())
    assert (folder / "traceback.txt").exists()
    assert f"resume {folder} to go on" in raised.value.__notes__[0]
    newest = newest_verified(folder / "checkpoints")
    assert newest is not None and newest.name == f"step-{left['resumes_from']:06d}"
    tiny_run.run(fresh_policy(), folder, settings, resume=True, **keywords)
    assert not (folder / "ending.json").exists() and not (folder / "traceback.txt").exists()
    return left


@pytest.mark.parametrize("place", [marked(place, is_slow=place in SLOW_PLACES) for place in PLACES])
def test_an_error_anywhere_in_a_step_loses_that_step_alone(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, place: str
):
    variant = "replayed" if place == "replay" else "schedule-free-ema"
    if place == "evaluation":
        settings = replace(tiny_run.VARIANTS[variant], evaluation=EvaluationSettings(every_steps=2, num_samples=2))
        keywords = {"held_out": tiny_run.PROBLEMS[:2]}
        tiny_run.run(fresh_policy(), tmp_path / "straight", settings, **keywords)
        straight = tmp_path / "straight"
    else:
        settings, keywords, straight = tiny_run.VARIANTS[variant], {}, undisturbed(variant)
    left = fail_and_resume(tiny_run, fresh_policy, tmp_path / "torn", settings, PLACES[place], **keywords)
    assert (left["step"], left["is_saved"], left["kind"], left["during"]) == (3, True, "error", "training")
    assert left["reason"].startswith("RuntimeError: as injected (")
    assert_same_run(straight, tmp_path / "torn")


@pytest.mark.parametrize(
    ("variant", "place"),
    [
        marked(variant, place, is_slow=PLACES_OF_KINDS[variant] != place)
        for variant in PLACES_OF_KINDS
        for place in PLACES_OF_KINDS.values()
    ],
)
def test_every_kind_of_run_goes_on_from_its_last_complete_step(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, variant: str, place: str
):
    left = fail_and_resume(tiny_run, fresh_policy, tmp_path, tiny_run.VARIANTS[variant], PLACES[place])
    assert (left["step"], left["is_saved"]) == (3, True)
    assert_same_run(undisturbed(variant), tmp_path)


@pytest.mark.parametrize("call", [1, 2])
def test_a_critic_half_trained_is_put_back(tiny_run, fresh_policy, tmp_path: Path, call: int):
    settings = replace(
        tiny_run.BASE,
        advantages=replace(tiny_run.BASE.advantages, kind="no-baseline"),
        credit=CreditSettings(kind="gae", gae_lambda=0.95),
    )
    tiny_run.run(fresh_policy(), tmp_path / "straight", settings)
    left = fail_and_resume(
        tiny_run,
        fresh_policy,
        tmp_path / "torn",
        settings,
        lambda fault: fault.put_around(Critic, "_step", call=call, is_after=True),
    )
    assert (left["step"], left["is_saved"]) == (3, True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_whatever_is_raised_is_an_end_with_a_save(tiny_run, fresh_policy, undisturbed, tmp_path: Path, error):
    left = fail_and_resume(
        tiny_run, fresh_policy, tmp_path, tiny_run.VARIANTS["iterative"], PLACES["third-backward"], error=error
    )
    assert (left["step"], left["is_saved"]) == (3, True)
    assert_same_run(undisturbed("iterative"), tmp_path)


def test_an_error_in_a_callback_comes_after_its_step_and_loses_nothing(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path
):
    def fail(metrics, samples) -> None:
        if metrics["step"] == 4:
            raise KeyError("in a callback")

    settings = replace(tiny_run.VARIANTS["schedule-free-ema"], checkpoints=CheckpointSettings(every_steps=20))
    with pytest.raises(KeyError):
        tiny_run.run(fresh_policy(), tmp_path, settings, on_step=fail)
    left = json.loads((tmp_path / "ending.json").read_text())
    assert (left["step"], left["is_saved"]) == (4, True)
    steps = []
    tiny_run.run(
        fresh_policy(), tmp_path, settings, resume=True, on_step=lambda metrics, _: steps.append(metrics["step"])
    )
    assert steps == [5, 6]
    assert_same_run(undisturbed("schedule-free-ema"), tmp_path)


def test_an_error_in_the_first_step_leaves_the_beginning_saved(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iteration_module, "update", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny_run.run(fresh_policy(), tmp_path, tiny_run.VARIANTS["iterative"])
    assert json.loads((tmp_path / "ending.json").read_text())["is_saved"]
    tiny_run.run(
        fresh_policy(),
        tmp_path,
        tiny_run.VARIANTS["iterative"],
        resume=True,
        prepare=lambda: pytest.fail("prepared again"),
    )
    assert_same_run(undisturbed("iterative"), tmp_path)


def test_without_a_copy_an_error_in_the_update_goes_back_to_the_newest_checkpoint_and_says_so(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path
):
    settings = replace(tiny_run.VARIANTS["iterative"], checkpoints=CheckpointSettings(every_steps=2, rescue=False))
    with pytest.MonkeyPatch.context() as patch:
        PLACES["after-optimizer-step"](Fault(patch))
        with pytest.raises(RuntimeError) as raised:
            tiny_run.run(fresh_policy(), tmp_path, settings)
    left = json.loads((tmp_path / "ending.json").read_text())
    assert (left["step"], left["resumes_from"], left["is_saved"]) == (3, 2, False)
    assert "checkpoints.rescue is off" in left["reason"]
    assert raised.value.__notes__[0].startswith("NOT saved after step 3: its last step is done again; resume ")
    tiny_run.run(fresh_policy(), tmp_path, settings, resume=True)
    assert_same_run(undisturbed("iterative"), tmp_path)


def test_without_a_copy_an_error_before_the_update_still_loses_that_step_alone(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path
):
    settings = replace(tiny_run.VARIANTS["iterative"], checkpoints=CheckpointSettings(every_steps=20, rescue=False))
    with pytest.MonkeyPatch.context() as patch:
        PLACES["first-backward"](Fault(patch))
        with pytest.raises(RuntimeError):
            tiny_run.run(fresh_policy(), tmp_path, settings)
    assert json.loads((tmp_path / "ending.json").read_text())["is_saved"]
    tiny_run.run(fresh_policy(), tmp_path, settings, resume=True)
    assert_same_run(undisturbed("iterative"), tmp_path)


def test_a_reference_that_is_half_moved_is_not_saved(tiny_run, fresh_policy, undisturbed, tmp_path: Path):
    def torn(self: Snapshot, policy, decay: float) -> None:
        if len(read_metrics(tmp_path / "metrics.jsonl")) == 3:
            self.is_torn = True
            raise MemoryError
        real(self, policy, decay)

    real = Snapshot.lerp_from
    settings = tiny_run.VARIANTS["schedule-free-ema"]
    assert settings.reference == reference_named("ema")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "lerp_from", torn)
        with pytest.raises(MemoryError):
            tiny_run.run(fresh_policy(), tmp_path, settings)
    left = json.loads((tmp_path / "ending.json").read_text())
    assert (left["resumes_from"], left["is_saved"]) == (2, False)
    assert "the reference was being moved" in left["reason"]
    tiny_run.run(fresh_policy(), tmp_path, settings, resume=True)
    assert_same_run(undisturbed("schedule-free-ema"), tmp_path)


def test_a_disk_that_refuses_the_rescue_is_told_beside_the_error(
    tiny_run, fresh_policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*arguments, **keywords) -> Path:
        raise OSError(28, "No space left on device")

    PLACES["sampling"](Fault(monkeypatch))
    monkeypatch.setattr(loop_module, "save_checkpoint", refuse)
    with pytest.raises(RuntimeError, match="as injected"):
        tiny_run.run(fresh_policy(), tmp_path, tiny_run.BASE)
    left = json.loads((tmp_path / "ending.json").read_text())
    assert (left["step"], left["resumes_from"], left["is_saved"]) == (3, 0, False)
    assert "not saved: OSError: [Errno 28] No space left on device" in left["reason"]


def test_a_copy_larger_than_half_of_the_free_memory_is_not_made(tiny_run, fresh_policy, monkeypatch, caplog):
    from klimb.training import rescue as rescue_module
    from klimb.training.checkpoints import CheckpointContent

    weights = {"w": torch.ones(1000)}  # 4,000 bytes
    content = CheckpointContent({"weights": weights, "optimizer": {}}, {"step": 1})
    monkeypatch.setattr(rescue_module, "free_memory", lambda: 7_999.0)
    short = Rescue()
    short.keep(content)
    short.hold()
    with pytest.raises(NothingToSave, match="no memory for a copy"):
        short.content()
    assert "an error in the middle of an update goes back to the newest checkpoint" in caplog.text
    monkeypatch.setattr(rescue_module, "free_memory", lambda: 8_000.0)
    enough = Rescue()
    enough.keep(content)
    enough.hold()
    weights["w"].zero_()
    assert torch.equal(enough.content().tensors["weights"]["w"], torch.ones(1000))


def test_the_next_complete_step_makes_up_for_a_lost_one():
    from klimb.training.checkpoints import CheckpointContent

    rescue = Rescue(is_on=False)
    rescue.keep(CheckpointContent({"weights": {}, "optimizer": {}}, {"step": 1}))
    rescue.hold()
    with pytest.raises(NothingToSave):
        rescue.content()
    rescue.keep(CheckpointContent({"weights": {}, "optimizer": {}}, {"step": 2}))
    assert rescue.content().numbers["step"] == 2


def test_an_objective_that_fails_is_an_error_like_any_other(tiny_run, fresh_policy, tmp_path: Path):
    class Fails(Objective):
        def __call__(self, *arguments, **keywords):
            raise AssertionError("\x1b[31mred\u202e")

    with pytest.raises(AssertionError):
        tiny_run.run(fresh_policy(), tmp_path, tiny_run.BASE, objective=Fails(beta=0.01))
    reason = json.loads((tmp_path / "ending.json").read_text())["reason"]
    assert reason.startswith(r"AssertionError: \x1b[31mred\u202e (test_rescue.py, line ")
    assert "\x1b" not in (tmp_path / "traceback.txt").read_text()
