"""The best checkpoint and early stopping: which step is the best, what is kept, how a run ends, what a resume knows."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.policies import load_policy
from klimb.tasks import Score
from klimb.training import CheckpointSettings, EarlyStoppingSettings, LoopSettings, load_checkpoint, read_metrics
from klimb.training.settings import EvaluationSettings
from klimb.training.watches import MetricWatch, Watches

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def watch_of(values, **settings) -> MetricWatch:
    watch = MetricWatch("m", **({"mode": "max"} | settings))
    for step, value in enumerate(values, start=1):
        watch.observe(step, {} if value is None else {"m": value})
    return watch


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([1.0, 3.0, 2.0], {}, (3.0, 2, 1)),
        ([1.0, 3.0, 2.0], {"mode": "min"}, (1.0, 1, 2)),
        ([3.0, 3.0, 3.0], {}, (3.0, 1, 2)),  # the earlier of equal ones
        ([3.0, None, math.nan, math.inf, 2.0], {}, (3.0, 1, 1)),  # three of these are no observations
        # A change of 0.5 and less is none; small ones add up, since the best stays where it was.
        ([1.0, 1.5, 1.6, 1.7], {"min_change": 0.5}, (1.6, 3, 1)),
        ([1.0, 0.6, 0.4], {"min_change": 0.5, "mode": "min"}, (0.4, 3, 0)),
        ([], {}, (None, 0, 0)),
    ],
)
def test_the_best_observation_by_hand(values, settings, expected):
    watch = watch_of(values, **settings)
    assert (watch.best, watch.best_step, watch.num_since) == expected


def test_a_step_whose_policy_was_rolled_back_is_no_observation():
    watch = watch_of([1.0])
    watch.observe(2, {"m": 9.0, "guard/rolled_back_to": 1.0})
    assert (watch.best, watch.num_since) == (1.0, 0)


def test_a_best_that_could_not_be_saved_gives_way_to_the_one_before():
    watch = watch_of([1.0, 3.0])
    watch.forget(2)
    assert (watch.best, watch.best_step) == (1.0, 1)
    watch.observe(3, {"m": 2.0})
    assert (watch.best, watch.best_step) == (2.0, 3)


def test_a_state_of_another_metric_or_mode_begins_anew_and_its_own_goes_on():
    state = watch_of([1.0, 3.0, 2.0]).state()
    for other in (MetricWatch("n", "max"), MetricWatch("m", "min")):
        other.load_state(state)
        assert other.best is None
    same = MetricWatch("m", "max")
    same.load_state(state)
    assert (same.best, same.best_step, same.num_since) == (3.0, 2, 1)


def test_the_reason_of_an_early_end_says_what_did_not_change_and_where_the_best_is():
    watches = Watches(stopping=watch_of([0.5, 0.4, 0.5], min_change=0.01), patience=2)
    assert watches.ending == (
        "early stopping: m did not rise by more than 0.01 in 2 observations in a row; its best is 0.5, of step 1"
    )
    assert not Watches(stopping=watch_of([0.5, 0.4]), patience=2).ending


SCORES = (0.1, 0.6, 0.3, 0.6, 0.2, 0.1)
"""What a run of six steps is told to have scored."""


def told_run(tiny_run, policy, folder: Path, settings: LoopSettings, *, first: int = 0, **changes):
    """Train, where the answers of each step are scored as told, so that reward_mean is known by hand."""
    return tiny_run.run(policy, folder, settings, scorer=StepScorer(first), **changes)


class StepScorer:
    """Scores 16 answers a step of the loop: about alike, so that there is something to learn."""

    def __init__(self, first: int) -> None:
        self._seen = 16 * first

    def identity(self):
        return {}

    def score_many(self, problems, responses) -> list[Score]:
        made = []
        for _ in responses:
            offset = {0: 0.05, 1: -0.05}.get(self._seen % 16, 0.0)
            made.append(Score(reward=SCORES[self._seen // 16] + offset, correct=True))
            self._seen += 1
        return made


@pytest.fixture
def fresh_policy(tiny_model_path: Path):
    return lambda: load_policy(str(tiny_model_path), dtype="float32", device="cpu")


def keeping(base: LoopSettings, **checkpoints) -> LoopSettings:
    given = {"every_steps": 100, "keep": 1, "best_metric": "reward_mean"} | checkpoints
    return replace(base, checkpoints=CheckpointSettings(**given))


def saved_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_best_checkpoint_is_kept_beside_the_last_and_the_earlier_of_equal_ones(tiny_run, tiny_policy, tmp_path):
    result = told_run(tiny_run, tiny_policy, tmp_path, keeping(tiny_run.BASE))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["reward_mean"] for row in rows] == pytest.approx(SCORES)
    assert saved_in(tmp_path) == ["step-000002", "step-000006"]
    assert result.best is not None
    assert (result.best.metric, result.best.progress.step, result.best.is_model) == ("reward_mean", 2, False)
    assert result.best.value == pytest.approx(0.6)
    assert result.model_progress.step == result.num_steps == 6
    last = load_checkpoint(tmp_path / "checkpoints" / "step-000006").tensors["weights"]
    assert all(torch.equal(last[name], parameter) for name, parameter in tiny_policy.trainable().items())


@pytest.mark.parametrize("kind", ["adamw", "schedule-free"])
def test_a_run_that_ends_with_its_best_holds_that_policy_and_can_still_go_on_from_its_last(
    tiny_run, tiny_policy, fresh_policy, tmp_path: Path, kind: str
):
    base = replace(tiny_run.BASE, optimizer=replace(tiny_run.BASE.optimizer, kind=kind))
    settings = keeping(base, model="best")
    short = replace(settings, training=replace(settings.training, num_steps=4))
    result = told_run(tiny_run, tiny_policy, tmp_path / "torn", short)
    assert (result.num_steps, result.model_progress.step, result.best.is_model) == (4, 2, True)
    best = load_checkpoint(tmp_path / "torn" / "checkpoints" / "step-000002").tensors["weights"]
    assert all(torch.equal(best[name], parameter) for name, parameter in tiny_policy.trainable().items())
    told_run(tiny_run, tiny_policy, tmp_path / "torn", settings, resume=True, first=4)
    told_run(tiny_run, fresh_policy(), tmp_path / "straight", keeping(base))
    torn, straight = (load_checkpoint(tmp_path / name / "checkpoints" / "step-000006") for name in ("torn", "straight"))
    for name, weight in straight.tensors["weights"].items():
        assert torch.equal(weight, torn.tensors["weights"][name])
    assert torn.numbers["watches"] == straight.numbers["watches"]
    assert straight.numbers["watches"]["best"]["num_since"] == 4


def test_watching_changes_no_number_of_a_run(tiny_run, tiny_policy, fresh_policy, tmp_path: Path):
    watched = replace(keeping(tiny_run.BASE), early_stopping=EarlyStoppingSettings(metric="loss", patience=99))
    told_run(tiny_run, tiny_policy, tmp_path / "watched", watched)
    plain = fresh_policy()
    told_run(tiny_run, plain, tmp_path / "plain", tiny_run.BASE)
    for name, parameter in plain.trainable().items():
        assert torch.equal(parameter, tiny_policy.trainable()[name])


def test_a_run_stops_early_saved_with_its_reason_and_a_resume_with_more_patience_goes_on(
    tiny_run, tiny_policy, tmp_path: Path
):
    settings = replace(tiny_run.BASE, early_stopping=EarlyStoppingSettings(metric="reward_mean", patience=2))
    result = told_run(tiny_run, tiny_policy, tmp_path, settings)
    # Best at step 2; steps 3 and 4 (equal) are two observations without a rise.
    assert result.num_steps == 4
    assert result.ending.startswith("early stopping: reward_mean did not rise in 2 observations in a row; its best is")
    assert result.ending.endswith("of step 2")
    assert "step-000004" in saved_in(tmp_path)
    again = told_run(tiny_run, tiny_policy, tmp_path, settings, resume=True, first=4)
    assert (again.num_steps, again.ending) == (4, result.ending)
    patient = replace(settings, early_stopping=EarlyStoppingSettings(metric="reward_mean", patience=4))
    assert told_run(tiny_run, tiny_policy, tmp_path, patient, resume=True, first=4).num_steps == 6


def test_a_best_checkpoint_that_is_gone_is_told_and_forgotten_at_a_resume(
    tiny_run, tiny_policy, tmp_path: Path, caplog
):
    settings = keeping(tiny_run.BASE)
    short = replace(settings, training=replace(settings.training, num_steps=4))
    told_run(tiny_run, tiny_policy, tmp_path, short)
    shutil.rmtree(tmp_path / "checkpoints" / "step-000002")
    result = told_run(tiny_run, tiny_policy, tmp_path, settings, resume=True, first=4)
    assert "the checkpoint of step 2, the best by reward_mean, is not in" in caplog.text
    assert result.best.progress.step == 5  # 0.2, and then 0.1


def test_a_damaged_best_checkpoint_leaves_the_last_policy_with_a_loud_message(
    tiny_run, tiny_policy, tmp_path: Path, caplog
):
    settings = keeping(tiny_run.BASE, model="best")

    def damage(metrics, samples) -> None:
        if metrics["step"] == 5:
            (tmp_path / "checkpoints" / "step-000002" / "weights.safetensors").write_bytes(b"cut")

    result = told_run(tiny_run, tiny_policy, tmp_path, settings, on_step=damage)
    assert result.best is None and result.model_progress.step == 6
    assert "is damaged" in caplog.text and "the model is that of the last step" in caplog.text
    last = load_checkpoint(tmp_path / "checkpoints" / "step-000006").tensors["weights"]
    assert all(torch.equal(last[name], parameter) for name, parameter in tiny_policy.trainable().items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: EarlyStoppingSettings(metric="reward_men"),
            "'reward_men' is no metric of a run; did you mean 'reward",
        ),
        (lambda: CheckpointSettings(best_metric="accurcy"), "did you mean 'accuracy'"),
        (lambda: EarlyStoppingSettings(patience=0), "patience must be >= 1"),
        (lambda: EarlyStoppingSettings(min_change=-1.0), "min_change must be >= 0"),
        (lambda: CheckpointSettings(model="best"), "model = 'best' and no checkpoints.best_metric says what is best"),
        (lambda: CheckpointSettings(best_mode="min"), "best_mode = 'min' and no checkpoints.best_metric"),
        (
            lambda: LoopSettings(early_stopping=EarlyStoppingSettings()),
            "early_stopping.metric = 'evaluation_mean', and there are no evaluations while training",
        ),
        (
            lambda: LoopSettings(checkpoints=CheckpointSettings(best_metric="guard/general_mean")),
            r"the run has no section \[guard\]",
        ),
    ],
)
def test_what_could_never_be_seen_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_families_of_metrics_and_those_of_a_source_are_metrics():
    evaluated = EvaluationSettings(every_steps=1)
    for name in ("evaluation_pass_at_4", "replay/reward_mean", "learning_rate"):
        LoopSettings(evaluation=evaluated, checkpoints=CheckpointSettings(best_metric=name))
