"""A guard that watches a run: it changes nothing until a limit is broken, and then does what it was told."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_resume import assert_same_run
from tests.training.tiny_run import BASE, VARIANTS, run

from klimb.experience import Sample
from klimb.policies import Policy, load_policy
from klimb.training import CheckpointError, LoopSettings, load_checkpoint, read_metrics, without_wall_clock
from klimb.training.guard.base_metrics import BaseMetrics, Flags
from klimb.training.guard.detection import Prompts, Schedule
from klimb.training.guard.settings import GuardSettings
from klimb.training.guard.watch import QualityGuard
from klimb.training.settings import EarlyStoppingSettings

# A run takes twice as long when the shapes are checked; other tests check those of the same runs.
pytestmark = pytest.mark.usefixtures("without_shape_checks")

EVERY_2 = GuardSettings(every_steps=2, max_perplexity_ratio=None)


class Distance:
    """As perplexity, 1 plus how far the weights are from where they were at first: it grows as training goes on."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.start = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
        self.num_measured = 0

    def measure(self) -> BaseMetrics:
        self.num_measured += 1
        return BaseMetrics(perplexity=1 + self.distance())

    def distance(self) -> float:
        now = self.policy.trainable()
        moves = [now[name].detach() - value for name, value in self.start.items()]
        return math.sqrt(math.fsum(float(move.square().sum()) for move in moves))

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        return Flags(empty=tuple("a" not in sample.response for sample in rollouts))


class Nothing:
    """Measures nothing."""

    def measure(self) -> BaseMetrics:
        return BaseMetrics()

    def flag(self, rollouts: Sequence[Sample]) -> Flags:
        return Flags()


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def distances(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Variant -> the measurement of each of its 6 steps, when nothing is done about it."""
    found: dict[str, list[float]] = {}
    for variant in ("iterative", "schedule-free-ema", "replayed"):
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        folder = tmp_path_factory.mktemp("distances")
        settings = replace(VARIANTS[variant], guard=replace(EVERY_2, every_steps=1))
        run(policy, folder, settings, base_metrics=Distance(policy))
        found[variant] = [row["guard/perplexity"] or 0.0 for row in read_metrics(folder / "metrics.jsonl")]
    return found


def limited(between: Sequence[float], **settings: Any) -> GuardSettings:
    """Breaks between the measurements of steps 2 and 4; the untrained policy measures 1."""
    assert between[1] < between[3]
    limits = {"max_perplexity_ratio": (between[1] + between[3]) / 2, "max_empty_fraction": None}
    return replace(EVERY_2, **limits, **settings)


def guard_file(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "guard.json").read_text(encoding="utf-8"))


def guarded_run(policy: Policy, folder: Path, settings: LoopSettings, **changes: Any) -> Any:
    return run(policy, folder, settings, base_metrics=Distance(policy), **changes)


def test_watching_changes_nothing(fresh_policy, tmp_path: Path):
    policy, watched = fresh_policy(), fresh_policy()
    run(policy, tmp_path / "plain", replace(BASE, training=replace(BASE.training, num_steps=3)))
    guarded_run(
        watched, tmp_path / "watched", replace(BASE, training=replace(BASE.training, num_steps=3), guard=EVERY_2)
    )
    assert all(torch.equal(value, watched.trainable()[name]) for name, value in policy.trainable().items())
    rows = [
        [
            {key: value for key, value in without_wall_clock(row).items() if not key.startswith("guard/")}
            for row in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("plain", "watched")
    ]
    assert rows[0] == rows[1]


def test_it_measures_before_at_its_steps_and_at_the_end(fresh_policy, tmp_path: Path):
    policy = fresh_policy()
    distance = Distance(policy)
    run(
        policy,
        tmp_path,
        replace(BASE, training=replace(BASE.training, num_steps=3), guard=EVERY_2),
        base_metrics=distance,
    )
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert ["guard/perplexity" in row for row in rows] == [False, True, False]
    assert distance.num_measured == 3
    kept = guard_file(tmp_path)
    assert kept["before"]["guard/perplexity"] == 1
    assert kept["after"]["guard/perplexity"] == distance.measure().perplexity
    assert kept["events"] == []


def test_rollouts_are_compared_with_the_first_ones_of_the_run(fresh_policy, tmp_path: Path):
    drawn: list[Sequence[Sample]] = []
    policy = fresh_policy()
    settings = replace(BASE, training=replace(BASE.training, num_steps=2), guard=EVERY_2)
    guarded_run(policy, tmp_path, settings, on_step=lambda metrics, samples: drawn.append(samples))
    without = [sum("a" not in sample.response for sample in samples) / len(samples) for samples in drawn]
    assert guard_file(tmp_path)["before"]["guard/rollout_empty_fraction"] == without[0]
    assert guard_file(tmp_path)["after"]["guard/rollout_empty_fraction"] == without[1]


def test_a_check_looks_at_the_rollouts_since_the_last_one_each_prompt_with_its_newest_answers(
    fresh_policy, tmp_path: Path
):
    drawn: list[Sequence[Sample]] = []
    settings = replace(BASE, training=replace(BASE.training, num_steps=4), guard=EVERY_2)
    guarded_run(fresh_policy(), tmp_path, settings, on_step=lambda metrics, samples: drawn.append(samples))
    newest = {sample.prompt[0]["content"]: samples for samples in drawn[2:] for sample in samples}
    empty = [
        "a" not in sample.response
        for prompt, samples in newest.items()
        for sample in samples
        if sample.prompt[0]["content"] == prompt
    ]
    kept = guard_file(tmp_path)
    assert kept["after"]["guard/rollout_empty_fraction"] == pytest.approx(sum(empty) / len(empty))
    (test,) = kept["tests"]
    asked = {sample.prompt[0]["content"] for samples in (drawn[0], *drawn[2:]) for sample in samples}
    assert (test["name"], test["unit"], test["num_units"]) == ("guard/rollout_empty_fraction", "prompt", len(asked))


def test_a_run_that_is_extended_again_and_again_never_spends_more_than_its_rate(fresh_policy, tmp_path: Path):
    spent = [0.0]
    for num_steps in (2, 4, 6):
        every_step = replace(EVERY_2, every_steps=1)
        settings = replace(BASE, training=replace(BASE.training, num_steps=num_steps), guard=every_step)
        guarded_run(fresh_policy(), tmp_path, settings, resume=num_steps > 2)
        state = load_checkpoint(tmp_path / "checkpoints" / f"step-{num_steps:06d}").numbers["quality"]
        # Two checks take 2/3 of what is left, and leave a part for those that were not planned.
        spent.append(spent[-1] + (0.05 - spent[-1]) * 2 / 3)
        assert state["spent"] == pytest.approx(spent[-1])
    assert spent[-1] < 0.05


def test_a_state_without_what_was_spent_is_refused_with_the_way_out():
    nowhere = Prompts(per_step=0, different=0)
    schedule = Schedule(num_steps=2, every_steps=1)
    guard = QualityGuard(settings=EVERY_2, measurer=Nothing(), schedule=schedule, prompts=nowhere)
    state = {name: value for name, value in guard.state().items() if name != "spent"}
    with pytest.raises(CheckpointError, match="resume without a guard"):
        guard.load_state(state)


def test_the_file_says_what_was_tested_and_what_the_guard_can_see(fresh_policy, tmp_path: Path, caplog):
    settings = replace(BASE, training=replace(BASE.training, num_steps=2), guard=EVERY_2)
    with caplog.at_level("INFO"):
        guarded_run(fresh_policy(), tmp_path, settings)
    kept = guard_file(tmp_path)
    (test,) = kept["tests"]
    assert test.keys() == {"name", "before", "now", "unit", "num_units", "p", "level"}
    assert test["level"] == pytest.approx(0.05 / 2)
    (seen,) = kept["detects"]
    assert (seen["name"], seen["num_checks"]) == ("guard/rollouts", 1)
    assert seen["sentence"] in caplog.text


def test_a_warning_goes_on(fresh_policy, tmp_path: Path, distances, caplog):
    settings = replace(BASE, guard=limited(distances["iterative"], action="warn"))
    result = guarded_run(fresh_policy(), tmp_path, settings)
    assert (result.num_steps, result.ending) == (6, "")
    assert [(event["step"], event["action"]) for event in guard_file(tmp_path)["events"]] == [(4, "warn"), (6, "warn")]
    broken = [row.get("guard/num_broken_limits") for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert broken == [None, 0, None, 1, None, 1]
    assert "perplexity of the held-out text is" in caplog.text


def test_a_stop_ends_the_run_and_a_resumed_one_stays_ended_until_told_otherwise(
    fresh_policy, tmp_path: Path, distances
):
    settings = replace(BASE, guard=limited(distances["iterative"], action="stop"))
    result = guarded_run(fresh_policy(), tmp_path, settings)
    assert result.num_steps == 4
    assert result.ending.startswith("the guard ended it at step 4: perplexity")
    resumed = guarded_run(fresh_policy(), tmp_path, settings, resume=True)
    assert (resumed.num_steps, resumed.ending) == (4, result.ending)
    told = replace(settings, guard=replace(settings.guard, action="warn"))
    assert guarded_run(fresh_policy(), tmp_path, told, resume=True).num_steps == 6
    assert [event["action"] for event in guard_file(tmp_path)["events"]] == ["stop", "warn"]


@pytest.mark.parametrize("variant", ["iterative", "schedule-free-ema", "replayed"])
def test_a_rollback_is_bit_for_bit_the_good_checkpoint(fresh_policy, tmp_path: Path, distances, variant: str, caplog):
    policy = fresh_policy()
    checkpoints = replace(BASE.checkpoints, every_steps=1, keep=1)
    guard = limited(distances[variant], action="rollback")
    result = guarded_run(policy, tmp_path, replace(VARIANTS[variant], checkpoints=checkpoints, guard=guard))
    assert result.num_steps == 4
    assert "went back to step 2" in result.ending
    assert "Went back to the policy after step 2; the run ends here" in caplog.text
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    good, last = (load_checkpoint(tmp_path / "checkpoints" / f"step-00000{step}") for step in (2, 4))
    assert all(torch.equal(value, good.tensors["weights"][name]) for name, value in policy.trainable().items())
    for stem in good.tensors.keys() - {"random"}:
        assert good.tensors[stem].keys() == last.tensors[stem].keys()
        assert all(torch.equal(tensor, last.tensors[stem][name]) for name, tensor in good.tensors[stem].items()), stem
    for part in ("optimizer", "reference", "replay", "queue"):
        assert good.numbers[part] == last.numbers[part]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row.get("guard/rolled_back_to") for row in rows] == [None, None, None, 2]
    kept = guard_file(tmp_path)
    assert [(event["action"], event["to_step"]) for event in kept["events"]] == [("rollback", 2)]
    assert kept["after"]["guard/perplexity"] == rows[1]["guard/perplexity"]


def test_after_a_rollback_it_may_go_on_with_smaller_steps_a_few_times(fresh_policy, tmp_path: Path, distances, caplog):
    guard = limited(distances["iterative"], action="rollback", rollback_learning_rate_factor=0.9, max_rollbacks=2)
    result = guarded_run(
        fresh_policy(), tmp_path, replace(BASE, training=replace(BASE.training, num_steps=12), guard=guard)
    )
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[4]["learning_rate"] == pytest.approx(0.9 * BASE.optimizer.learning_rate, rel=1e-12)
    back = [(int(row["step"] or 0), row["guard/rolled_back_to"]) for row in rows if "guard/rolled_back_to" in row]
    assert back[0] == (4, 2)
    assert len(back) == 3
    assert result.num_steps == back[2][0]
    assert result.ending
    assert "Went back to the policy after step 2; from there on 0.9 × the learning rate" in caplog.text
    lasting = rows[back[1][0]]["learning_rate"]
    assert lasting == pytest.approx(0.81 * BASE.optimizer.learning_rate, rel=1e-12)


@pytest.mark.parametrize("variant", ["iterative", "schedule-free-ema"])
def test_a_run_that_rolls_back_is_resumed_bit_for_bit(fresh_policy, tmp_path: Path, distances, variant: str):
    guard = limited(distances[variant], action="rollback", rollback_learning_rate_factor=0.1)
    settings = replace(VARIANTS[variant], guard=guard)
    guarded_run(fresh_policy(), tmp_path / "straight", settings)

    def fail_at(step: int):
        def fail(metrics, samples) -> None:
            if metrics["step"] == step:
                raise RuntimeError("as if the power went")

        return fail

    with pytest.raises(RuntimeError):
        guarded_run(fresh_policy(), tmp_path / "torn", settings, on_step=fail_at(1))
    # The second time it goes at the step that rolled back, and the third just behind it.
    for step in (4, 5):
        with pytest.raises(RuntimeError):
            guarded_run(fresh_policy(), tmp_path / "torn", settings, on_step=fail_at(step), resume=True)
    guarded_run(fresh_policy(), tmp_path / "torn", settings, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "torn")
    assert guard_file(tmp_path / "straight") == guard_file(tmp_path / "torn")
    assert [row.get("guard/rolled_back_to") for row in read_metrics(tmp_path / "torn" / "metrics.jsonl")][3] == 2


def test_a_guard_that_begins_on_resume_measures_the_untrained_policy(fresh_policy, tmp_path: Path):
    guarded_run(fresh_policy(), tmp_path, replace(BASE, training=replace(BASE.training, num_steps=2), guard=None))
    guarded_run(
        fresh_policy(),
        tmp_path,
        replace(BASE, training=replace(BASE.training, num_steps=4), guard=EVERY_2),
        resume=True,
    )
    kept = guard_file(tmp_path)
    assert kept["before"]["guard/perplexity"] == 1
    assert kept["after"]["guard/perplexity"] > 1


def test_a_damaged_good_checkpoint_stops_the_run_and_says_why(fresh_policy, tmp_path: Path, distances, caplog):
    def damage(metrics, samples) -> None:
        if metrics["step"] == 3:
            (tmp_path / "checkpoints" / "step-000002" / "weights.safetensors").write_bytes(b"")

    settings = replace(BASE, guard=limited(distances["iterative"], action="rollback"))
    result = guarded_run(fresh_policy(), tmp_path, settings, on_step=damage)
    assert result.num_steps == 4
    assert [event["action"] for event in guard_file(tmp_path)["events"]] == ["stop"]
    assert "step-000002, is damaged: weights.safetensors has 0 bytes" in caplog.text


def test_a_preparation_that_breaks_a_limit_ends_the_run_before_its_first_step(fresh_policy, tmp_path: Path):
    policy = fresh_policy()

    @torch.no_grad()
    def prepare() -> None:
        next(iter(policy.trainable().values())).add_(1.0)

    guard = GuardSettings(action="stop")
    result = guarded_run(policy, tmp_path, replace(BASE, guard=guard), prepare=prepare)
    assert result.num_steps == 0
    assert [(event["step"], event["action"]) for event in guard_file(tmp_path)["events"]] == [(0, "stop")]


def test_a_guard_without_anything_that_measures_is_refused(fresh_policy, tmp_path: Path):
    with pytest.raises(ValueError, match="nothing that measures"):
        run(fresh_policy(), tmp_path, replace(BASE, guard=EVERY_2))


def test_a_last_step_that_is_rolled_back_is_no_observation_and_says_so_in_its_metrics(
    fresh_policy, tmp_path: Path, distances
):
    """Early stopping would end it at step 2; the guard, due at 4, goes back to the start first, and the run goes on."""
    at = distances["iterative"]
    limit = GuardSettings(
        every_steps=4,
        action="rollback",
        rollback_learning_rate_factor=0.01,
        max_perplexity_ratio=(1 + min(at[:2])) / 2,
        max_empty_fraction=None,
    )
    stopping = EarlyStoppingSettings(metric="num_samples", patience=1)
    result = guarded_run(fresh_policy(), tmp_path, replace(BASE, guard=limit, early_stopping=stopping))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    # Step 1 is the best, steps 2 and on are not better: one of them that stays is an observation and ends the run.
    assert rows[1]["guard/rolled_back_to"] == 0
    assert result.num_steps == 3
    assert "early stopping: num_samples did not rise in 1 observation" in result.ending
    assert [(event["step"], event["to_step"]) for event in guard_file(tmp_path)["events"]] == [(2, 0)]


def test_the_best_point_is_none_whose_policy_the_last_measurement_rolls_back(fresh_policy, tmp_path: Path, distances):
    limit = replace(limited(distances["iterative"], action="rollback"), every_steps=2)
    training = replace(BASE.training, num_steps=3)
    limit = replace(limit, max_perplexity_ratio=sum(distances["iterative"][1:3]) / 2)
    checkpoints = replace(BASE.checkpoints, best_metric="step")
    result = guarded_run(
        fresh_policy(), tmp_path, replace(BASE, training=training, checkpoints=checkpoints, guard=limit)
    )
    assert [row.get("guard/rolled_back_to") for row in read_metrics(tmp_path / "metrics.jsonl")] == [None, None, 2]
    assert result.best is not None and result.best.progress.step == 2
