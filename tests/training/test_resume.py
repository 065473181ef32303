import json
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from klimb.errors import Interrupted
from klimb.experience import Sample, read_samples
from klimb.losses import Objective
from klimb.policies import LoraSettings, load_policy
from klimb.tasks import Problem, Score
from klimb.training import (
    CheckpointError,
    OptimizerSettings,
    load_checkpoint,
    newest_verified,
    read_metrics,
    without_wall_clock,
)

# A run takes twice as long when the shapes are checked; those of the undisturbed runs are.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

EXERCISES = {
    "iterative": lambda lines: lines[-1]["epoch"] >= 1,
    "schedule-free-ema": lambda lines: lines[-1]["kl_pi_ref"] > 0,
    "every-10-filtered": lambda lines: (
        lines[-1]["num_reference_refreshes"] == 1 and max(line["num_rounds"] for line in lines) > 1
    ),
    "threshold-recomputed": lambda lines: 0 < lines[-1]["num_reference_refreshes"] < 5,
    "fixed-shuffled-tempered": lambda lines: lines[-1]["kl_pi_ref"] > 0,
    "replayed": lambda lines: lines[-1]["replay/num_dropped"] > 0 and lines[-1]["replay/age_max"] > 4,
    "delayed": lambda lines: lines[-1]["rollout/age_mean"] == 8,
    "delayed-recomputed": lambda lines: lines[-1]["rollout/age_mean"] == 4,
}
"""Variant -> what must have happened in its metrics, lest a test of its state tests nothing."""


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    """A new policy with the same weights each time, as a new process would load it."""
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


def without_clock(sample: Sample) -> Sample:
    return replace(sample, created_at=0.0, turns=tuple(replace(turn, seconds=None) for turn in sample.turns))


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: the whole state in the newest checkpoint, all metrics but the clock's, rollouts but their time."""
    contents = []
    for folder in (one, other):
        newest = newest_verified(folder / "checkpoints")
        assert newest is not None
        contents.append(load_checkpoint(newest))
    assert contents[0].tensors.keys() == contents[1].tensors.keys()
    for stem, tensors in contents[0].tensors.items():
        assert tensors.keys() == contents[1].tensors[stem].keys()
        assert all(torch.equal(tensor, contents[1].tensors[stem][name]) for name, tensor in tensors.items()), stem
    changing = ("metrics_bytes", "identity", "elapsed_seconds", "total_seconds")
    numbers = [{key: value for key, value in content.numbers.items() if key not in changing} for content in contents]
    assert numbers[0] == numbers[1]
    metrics = [[without_wall_clock(line) for line in read_metrics(folder / "metrics.jsonl")] for folder in (one, other)]
    assert metrics[0] == metrics[1]
    rollouts = [sorted((folder / "rollouts").iterdir()) for folder in (one, other)]
    assert [path.name for path in rollouts[0]] == [path.name for path in rollouts[1]]
    for paths in zip(*rollouts, strict=True):
        samples = [[without_clock(sample) for sample in read_samples(path)] for path in paths]
        assert samples[0] == samples[1]


@pytest.mark.parametrize("variant", EXERCISES)
def test_stopped_and_resumed_is_bit_for_bit_the_uninterrupted_run(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, variant
):
    settings = tiny_run.VARIANTS[variant]
    tiny_run.run(fresh_policy(), tmp_path / "torn", replace(settings, training=replace(settings.training, num_steps=3)))
    result = tiny_run.run(fresh_policy(), tmp_path / "torn", settings, resume=True)
    assert result.num_steps == 6
    assert_same_run(undisturbed(variant), tmp_path / "torn")
    assert EXERCISES[variant](read_metrics(undisturbed(variant) / "metrics.jsonl"))


def test_an_adapter_is_the_whole_of_a_checkpoint_and_of_its_reference(tiny_run, tiny_model_path, tmp_path: Path):
    def fresh(seed: int):
        torch.manual_seed(seed)  # peft draws one half of a fresh adapter from the global generator
        return load_policy(str(tiny_model_path), dtype="float32", device="cpu", lora=LoraSettings(rank=4))

    settings = tiny_run.VARIANTS["schedule-free-ema"]
    tiny_run.run(fresh(0), tmp_path / "straight", settings)
    tiny_run.run(fresh(0), tmp_path / "torn", replace(settings, training=replace(settings.training, num_steps=2)))
    tiny_run.run(fresh(1), tmp_path / "torn", settings, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")
    content = load_checkpoint(tmp_path / "torn" / "checkpoints" / "step-000006")
    for stem in ("weights", "reference"):
        assert all("lora" in name for name in content.tensors[stem])


def test_an_interruption_between_checkpoints_loses_nothing(tiny_run, fresh_policy, undisturbed, tmp_path: Path):
    settings = tiny_run.VARIANTS["schedule-free-ema"]

    def interrupt(metrics, samples) -> None:
        if metrics["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        tiny_run.run(fresh_policy(), tmp_path / "torn", settings, on_step=interrupt)
    steps = []
    tiny_run.run(
        fresh_policy(),
        tmp_path / "torn",
        settings,
        resume=True,
        on_step=lambda metrics, _: steps.append(metrics["step"]),
    )
    assert steps == [4, 5, 6]
    assert_same_run(undisturbed("schedule-free-ema"), tmp_path / "torn")


def test_an_exception_between_checkpoints_is_cut_back_and_done_again(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path
):
    settings = tiny_run.VARIANTS["every-10-filtered"]

    def fail(metrics, samples) -> None:
        if metrics["step"] == 5:
            raise RuntimeError("as if the power went")

    with pytest.raises(RuntimeError):
        tiny_run.run(fresh_policy(), tmp_path / "torn", settings, on_step=fail)
    assert len(read_metrics(tmp_path / "torn" / "metrics.jsonl")) == 5
    tiny_run.run(fresh_policy(), tmp_path / "torn", settings, resume=True)
    assert_same_run(undisturbed("every-10-filtered"), tmp_path / "torn")


def test_a_damaged_checkpoint_gives_the_one_before_and_the_same_end(
    tiny_run, fresh_policy, undisturbed, tmp_path: Path, caplog
):
    settings = tiny_run.VARIANTS["schedule-free-ema"]
    tiny_run.run(fresh_policy(), tmp_path / "torn", replace(settings, training=replace(settings.training, num_steps=4)))
    path = tmp_path / "torn" / "checkpoints" / "step-000004" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 16
    path.write_bytes(data)
    steps = []
    tiny_run.run(
        fresh_policy(),
        tmp_path / "torn",
        settings,
        resume=True,
        on_step=lambda metrics, _: steps.append(metrics["step"]),
    )
    assert steps == [3, 4, 5, 6]
    assert "step-000004 is damaged" in caplog.text
    names = sorted(path.name for path in (tmp_path / "torn" / "checkpoints").iterdir())
    assert names == ["damaged-step-000004", "step-000004", "step-000006"]
    assert_same_run(undisturbed("schedule-free-ema"), tmp_path / "torn")


def test_when_every_checkpoint_is_damaged_nothing_is_thrown_away(tiny_run, fresh_policy, tmp_path: Path):
    tiny_run.run(
        fresh_policy(), tmp_path, replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=2))
    )
    (tmp_path / "checkpoints" / "step-000002" / "numbers.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"none of the checkpoints .* is undamaged"):
        tiny_run.run(fresh_policy(), tmp_path, tiny_run.BASE, resume=True)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_run_that_failed_while_it_was_prepared_is_prepared_again(tiny_run, fresh_policy, tmp_path: Path):
    settings = replace(
        tiny_run.VARIANTS["iterative"], training=replace(tiny_run.VARIANTS["iterative"].training, num_steps=2)
    )
    tiny_run.run(fresh_policy(), tmp_path / "straight", settings)

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        tiny_run.run(fresh_policy(), tmp_path / "torn", settings, prepare=fail)
    prepared = []
    tiny_run.run(
        fresh_policy(), tmp_path / "torn", settings, resume=True, prepare=lambda: prepared.append("from the beginning")
    )
    assert prepared == ["from the beginning"]
    assert_same_run(tmp_path / "straight", tmp_path / "torn")


def test_preparation_is_left_out_on_resume(tiny_run, fresh_policy, tmp_path: Path):
    settings = tiny_run.VARIANTS["iterative"]
    tiny_run.run(fresh_policy(), tmp_path, replace(settings, training=replace(settings.training, num_steps=2)))
    tiny_run.run(fresh_policy(), tmp_path, settings, resume=True, prepare=lambda: pytest.fail("prepared again"))


def test_a_finished_run_resumed_does_nothing(tiny_run, fresh_policy, tmp_path: Path):
    settings = replace(
        tiny_run.VARIANTS["iterative"], training=replace(tiny_run.VARIANTS["iterative"].training, num_steps=2)
    )
    tiny_run.run(fresh_policy(), tmp_path, settings)
    result = tiny_run.run(fresh_policy(), tmp_path, settings, resume=True)
    assert (result.num_steps, result.metrics) == (2, {})
    assert result.checkpoint is not None
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


@pytest.fixture
def begun(undisturbed, tmp_path: Path):
    """A folder of one's own with two steps of the plain run."""
    return Path(shutil.copytree(undisturbed("iterative", 2), tmp_path / "begun"))


def test_other_settings_are_refused_with_both_values(tiny_run, fresh_policy, begun: Path):
    changed = replace(
        tiny_run.BASE,
        advantages=replace(tiny_run.BASE.advantages, kind="leave-one-out"),
        sampling=replace(tiny_run.BASE.sampling, num_samples=8),
        seed=1,
    )
    with pytest.raises(CheckpointError) as raised:
        tiny_run.run(fresh_policy(), begun, changed, resume=True)
    for line in (
        "seed: 0 in the checkpoint, 1 now",
        "sampling.num_samples: 4 in the checkpoint, 8 now",
        "advantages.kind: 'group-mean' in the checkpoint, 'leave-one-out' now",
    ):
        assert line in str(raised.value)


def test_another_objective_or_other_data_is_refused(tiny_run, fresh_policy, begun: Path):
    with pytest.raises(CheckpointError, match=r"loss\.beta: 0.01 in the checkpoint, 0.02 now"):
        tiny_run.run(fresh_policy(), begun, tiny_run.BASE, resume=True, objective=Objective(beta=0.02))
    other = Problem(problem_id="0", messages=({"role": "user", "content": "Say zero"},), answer="a")
    with pytest.raises(CheckpointError, match="problems"):
        tiny_run.run(fresh_policy(), begun, tiny_run.BASE, resume=True, problems=(other, *tiny_run.PROBLEMS[1:]))


def test_steps_and_learning_rate_may_change(tiny_run, fresh_policy, begun: Path):
    changed = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=4),
        optimizer=OptimizerSettings(learning_rate=1e-5, warmup_steps=2),
    )
    metrics = tiny_run.run(fresh_policy(), begun, changed, resume=True).metrics
    # The metric is the mean over a step's minibatches, weighted by tokens: its last bit depends on what was drawn.
    assert metrics["learning_rate"] == pytest.approx(1e-5, rel=1e-12)


def test_a_schedule_goes_on_bit_for_bit_and_keeps_its_number_where_a_run_is_resumed_for_longer(
    tiny_run, fresh_policy, tmp_path: Path
):
    decaying = OptimizerSettings(learning_rate=3e-3, warmup_steps=2, schedule="cosine", schedule_steps=12)
    whole = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=4), optimizer=decaying)
    half = replace(whole, training=replace(whole.training, num_steps=2))
    straight, torn = fresh_policy(), fresh_policy()
    one = tiny_run.run(straight, tmp_path / "straight", whole)
    tiny_run.run(torn, tmp_path / "torn", half)
    other = tiny_run.run(torn, tmp_path / "torn", whole, resume=True)
    assert one.metrics["learning_rate"] == other.metrics["learning_rate"]
    # Each step of the loop takes 4 of the optimizer: the mean of (1 + cos πp) / 2 at p = 1 and beyond is 0.
    assert one.metrics["learning_rate"] == pytest.approx(0.0, abs=1e-12)
    for name, parameter in straight.trainable().items():
        assert torch.equal(parameter, torn.trainable()[name])


@pytest.mark.parametrize(("key", "value"), [("schedule", "linear"), ("schedule_steps", 13)])
def test_another_schedule_is_refused(tiny_run, fresh_policy, tmp_path: Path, key: str, value):
    decaying = OptimizerSettings(learning_rate=3e-3, warmup_steps=2, schedule="cosine", schedule_steps=12)
    begun = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1), optimizer=decaying)
    tiny_run.run(fresh_policy(), tmp_path, begun)
    changed = replace(begun, optimizer=replace(decaying, **{key: value}))
    with pytest.raises(CheckpointError, match=rf"optimizer\.{key}: .* in the checkpoint, {value!r} now"):
        tiny_run.run(fresh_policy(), tmp_path, changed, resume=True)


def test_another_model_is_refused(tiny_run, fresh_policy, begun: Path):
    policy = fresh_policy()
    first = next(iter(policy.trainable().values()))
    first.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"policy\.frozen_weights: 'absent' in the checkpoint"):
        tiny_run.run(policy, begun, tiny_run.BASE, resume=True)


class Counter:
    """A scorer of one's own; `weight` is a setting and `calls` is not."""

    weight = 1.0

    def __init__(self) -> None:
        self.calls = 0

    def score_many(self, problems, responses):
        self.calls += 1
        return [Score(reward=self.weight * response.text.count("a")) for response in responses]


class Heavier(Counter):
    weight = 2.0

    def score_many(self, problems, responses):
        return super().score_many(problems, responses)


@dataclass(frozen=True)
class Told:
    """A scorer that says what its rewards depend on."""

    amount: float

    def identity(self):
        return {"amount": self.amount}

    def score_many(self, problems, responses):
        return [Score(reward=self.amount * response.text.count("a")) for response in responses]


def test_another_scorer_is_refused_by_its_source_or_by_what_it_says(tiny_run, fresh_policy, tmp_path: Path):
    short = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1))
    longer = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=2))
    tiny_run.run(fresh_policy(), tmp_path / "own", short, scorer=Counter())
    with pytest.raises(CheckpointError, match=r"scorer: 'Counter, SHA-256 \w{16}' in the checkpoint, 'Heavier, SHA"):
        tiny_run.run(fresh_policy(), tmp_path / "own", longer, scorer=Heavier(), resume=True)
    assert tiny_run.run(fresh_policy(), tmp_path / "own", longer, scorer=Counter(), resume=True).num_steps == 2
    tiny_run.run(fresh_policy(), tmp_path / "told", short, scorer=Told(1.0))
    with pytest.raises(CheckpointError, match=r"amount: 1.0 in the checkpoint, 2.0 now"):
        tiny_run.run(fresh_policy(), tmp_path / "told", longer, scorer=Told(2.0), resume=True)


def test_another_environment_is_told(tiny_run, fresh_policy, begun: Path, caplog):
    path = begun / "checkpoints" / "step-000002" / "numbers.json"
    numbers = json.loads(path.read_text())
    numbers["content"]["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(numbers))
    manifest = path.with_name("manifest.json")
    listed = json.loads(manifest.read_text())
    listed["files"].pop("numbers.json")
    manifest.write_text(json.dumps(listed))
    tiny_run.run(fresh_policy(), begun, tiny_run.BASE, resume=True)
    assert "begun with 1.0: correct, but not bit for bit" in caplog.text


def test_rollouts_of_different_runs_have_different_ids_and_those_of_a_continued_run_do_not(
    tiny_run, fresh_policy, tmp_path: Path
):
    def ids(folder: Path) -> set[str]:
        return {sample.sample_id for path in (folder / "rollouts").iterdir() for sample in read_samples(path)}

    short = replace(tiny_run.BASE, training=replace(tiny_run.BASE.training, num_steps=1))
    tiny_run.run(fresh_policy(), tmp_path / "one", short)
    tiny_run.run(fresh_policy(), tmp_path / "other", short, objective=Objective(beta=0.02))
    assert not ids(tmp_path / "one") & ids(tmp_path / "other")
    tiny_run.run(fresh_policy(), tmp_path / "longer", replace(short, training=replace(short.training, num_steps=2)))
    assert ids(tmp_path / "one") < ids(tmp_path / "longer")
