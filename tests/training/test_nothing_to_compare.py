"""Steps for which there is too little: they train on nothing, say so, are counted, and the run goes on."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.experience import Sample, read_samples
from klimb.losses import Objective
from klimb.policies import load_policy
from klimb.tasks import Problem, Response, Score, chat
from klimb.training import (
    AdvantageSettings,
    EvaluationSettings,
    LoopSettings,
    OfflineSource,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    read_metrics,
    without_wall_clock,
)
from klimb.training.next_batch import Share

BATCH_KINDS = ("batch-mean", "batch-z-score", "batch-soft-value")


class NumberScorer:
    """Gives the n-th response of the run the reward that `rule` says; None is an error."""

    def __init__(self, rule: Callable[[int], float | None], *, begin: int = 0) -> None:
        self.rule, self.number = rule, begin

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        rewards = [self.rule(number) for number in range(self.number, self.number + len(responses))]
        self.number += len(responses)
        return [Score(reward=reward, reason="" if reward is not None else "cannot be scored") for reward in rewards]


def settings_of(tiny_run, *, num_steps: int = 3, advantages: AdvantageSettings, **changes) -> LoopSettings:
    return replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=num_steps, num_epochs=1, num_minibatches=1),
        sampling=RolloutSettings(num_prompts=2, num_samples=2, max_new_tokens=4),
        advantages=advantages,
        **changes,
    )


def one_at_step_2(number: int) -> float | None:
    """Four responses a step; at the second, one alone has a reward."""
    return float(number % 3) if number // 4 != 1 or number == 6 else None


def rows(folder: Path):
    return read_metrics(folder / "metrics.jsonl")


@pytest.mark.parametrize("kind", BATCH_KINDS)
def test_one_reward_in_a_batch_trains_on_nothing_and_the_run_goes_on(
    tiny_run, tiny_policy, tiny_model_path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
):
    settings = settings_of(tiny_run, advantages=AdvantageSettings(kind=kind, group_filter=False))
    tiny_run.run(tiny_policy, tmp_path / "run", settings, scorer=NumberScorer(one_at_step_2))
    lines = rows(tmp_path / "run")
    assert [line["num_optimizer_steps"] for line in lines] == [1, 0, 1]
    assert [line["num_uncompared"] for line in lines] == [0, 1, 0]
    assert [line["num_groups_used"] for line in lines] == [2, 0, 2]
    assert "step 2 trained on nothing" in caplog.text
    stored = read_samples(tmp_path / "run" / "rollouts" / "step-000002.parquet")
    assert [each.metadata["used"] for each in stored if each.reward is not None] == [
        "no: no other response of its batch has a reward"
    ]
    # Begun again at that step, the run takes it and is the same.
    other = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    shorter = replace(settings, training=replace(settings.training, num_steps=1))
    tiny_run.run(other, tmp_path / "resumed", shorter, scorer=NumberScorer(one_at_step_2))
    scorer = NumberScorer(one_at_step_2, begin=4)
    tiny_run.run(other, tmp_path / "resumed", settings, scorer=scorer, resume=True)
    assert [*map(without_wall_clock, rows(tmp_path / "resumed"))] == [*map(without_wall_clock, lines)]
    assert all(torch.equal(one, other.trainable()[name]) for name, one in tiny_policy.trainable().items())


@pytest.mark.parametrize("kind", ["batch-z-score", "group-mean", "no-baseline"])
@pytest.mark.parametrize("changes", [{"sampling": {"lag": 1}}, {"sources": SourceSettings(replay=0.5)}], ids=repr)
def test_no_rewards_for_some_steps_end_no_run_that_delays_or_replays(
    tiny_run, tiny_policy, tiny_model_path, tmp_path: Path, kind: str, changes
):
    """Rewards for the first of every five responses only; with two a group that is often none or one."""
    settings = settings_of(tiny_run, num_steps=4, advantages=AdvantageSettings(kind=kind, group_filter=False))
    if "sampling" in changes:
        settings = replace(settings, sampling=replace(settings.sampling, **changes["sampling"]))
    else:
        settings = replace(settings, **changes)

    def rule(number: int) -> float | None:
        return float(number) if number % 5 == 0 else None

    tiny_run.run(tiny_policy, tmp_path / "run", settings, scorer=NumberScorer(rule))
    lines = rows(tmp_path / "run")
    assert len(lines) == 4
    assert any(line["num_optimizer_steps"] == 0 for line in lines) == (kind != "no-baseline")
    # Stopped after the second step and resumed, it goes on as it went.
    other = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
    shorter = replace(settings, training=replace(settings.training, num_steps=2))
    first = NumberScorer(rule)
    tiny_run.run(other, tmp_path / "resumed", shorter, scorer=first)
    tiny_run.run(other, tmp_path / "resumed", settings, scorer=first, resume=True)
    assert [*map(without_wall_clock, rows(tmp_path / "resumed"))] == [*map(without_wall_clock, lines)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": RolloutSettings(num_prompts=1, num_samples=1)}, r"sources\.rollout = 1 .* is one answer"),
        (
            {
                "sampling": RolloutSettings(num_prompts=4, num_samples=1),
                "sources": SourceSettings(replay=0.25),
            },
            r"sources\.replay = 0\.25 of sampling\.num_prompts = 4 .* is one answer",
        ),
        (
            {"sampling": RolloutSettings(num_prompts=3, num_samples=4), "sources": SourceSettings(log=0.1)},
            r"sources\.log = 0\.1 of sampling\.num_prompts = 3 groups comes to none",
        ),
        (
            {"sampling": RolloutSettings(num_prompts=2, num_samples=4), "sources": SourceSettings(replay=0.2)},
            r"sources\.replay = 0\.2 .* comes to none",
        ),
        (
            {"sampling": RolloutSettings(num_prompts=2, num_samples=4), "sources": SourceSettings(feedback=0.1)},
            r"sources\.feedback = 0\.1 .* comes to none",
        ),
    ],
)
@pytest.mark.parametrize("kind", BATCH_KINDS)
def test_what_can_never_compare_anything_is_refused_at_loading(changes, message: str, kind: str):
    with pytest.raises(ValueError, match=message):
        LoopSettings(advantages=AdvantageSettings(kind=kind), **changes)


def test_one_answer_is_enough_where_nothing_is_compared():
    LoopSettings(
        sampling=RolloutSettings(num_prompts=1, num_samples=1), advantages=AdvantageSettings(kind="no-baseline")
    )


class Shelf:
    """A log in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)

    def count(self, where: str = "") -> int:
        return 0 if "provenance" in where else len(self.samples)

    def group_ids(self, *, where: str = "") -> list[str]:
        return sorted({sample.group_id for sample in self.samples})

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        return [[sample for sample in self.samples if sample.group_id == name] for name in group_ids]


def logged(policy, rewards: Sequence[Sequence[float | None]]) -> list[Sample]:
    """A group for each list, a sample for each reward."""
    prompt = chat("Say a")
    ids = (*policy.tokenizer("a", add_special_tokens=False).input_ids, policy.end_ids[0])
    return [
        Sample(
            sample_id=f"l{number}-{place}", group_id=f"l{number}", prompt=prompt, prompt_ids=policy.render(prompt),
            response="a", response_ids=ids, finish_reason="stop", log_mu=(-4.0, -4.0), log_mu_provenance="sampler",
            sampling=None, model="other", tokenizer=policy.fingerprint, policy_version=0, created_at=0.0,
            reward=reward,
        )
        for number, group in enumerate(rewards)
        for place, reward in enumerate(group)
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["log", "feedback"])
@pytest.mark.parametrize(
    ("kind", "filtered", "rewards", "reason"),
    [
        ("group-mean", True, [[1.0, 1.0], [0.5, 0.5]], "its group is even"),
        ("group-mean", False, [[1.0, None], [None, 2.0]], "fewer than 2 responses of its group have a reward"),
        ("batch-z-score", False, [[1.0, None], [None, None]], "no other response of its batch has a reward"),
        ("no-baseline", False, [[None, None], [None, None]], "it has no reward"),
    ],
)
def test_a_share_that_yields_nothing_is_counted_at_every_step_and_said_once_with_the_reason(
    tiny_run, tiny_policy, tmp_path: Path, caplog: pytest.LogCaptureFixture, source, kind, filtered, rewards, reason
):
    settings = settings_of(
        tiny_run,
        advantages=AdvantageSettings(kind=kind, group_filter=filtered),
        sources=SourceSettings(**{source: 0.5}),
    )
    log = OfflineSource(Shelf(logged(tiny_policy, rewards)), tiny_policy, source=source)
    scorer = NumberScorer(lambda number: float(number % 3))
    tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=[log], scorer=scorer)
    for line in rows(tmp_path / "run"):
        assert [line[f"{source}/{name}"] for name in ("num_samples", "num_groups", "num_groups_missing")] == [0, 0, 1]
    said = [record.getMessage() for record in caplog.records if f"the share of {source}" in record.getMessage()]
    assert len(said) == 1
    assert reason in said[0]


def test_a_replay_that_yields_nothing_is_said_from_the_second_step_on(
    tiny_run, tiny_policy, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Nothing is replayed at the first step, by its nature; later the groups are too old."""
    settings = settings_of(
        tiny_run,
        advantages=AdvantageSettings(kind="no-baseline", group_filter=False),
        sources=SourceSettings(replay=0.5),
        replay=ReplaySettings(max_age=1),
    )
    several = replace(settings, training=replace(settings.training, num_epochs=2))
    with caplog.at_level(logging.WARNING):
        tiny_run.run(tiny_policy, tmp_path / "run", several, scorer=NumberScorer(lambda number: float(number % 3)))
    assert [line["replay/num_groups_missing"] for line in rows(tmp_path / "run")] == [1, 1, 1]
    said = [record.getMessage() for record in caplog.records if "the share of replay" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("step 2:")
    assert "replay.max_age = 1" in said[0]


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        ("group-mean", 5, "holds one sample, and advantages.kind = 'group-mean' compares those of a group"),
        ("batch-z-score", 1, "one group; raise the share"),
    ],
)
def test_a_log_that_can_never_be_compared_is_refused(tiny_run, tiny_policy, tmp_path: Path, kind, groups, message):
    settings = settings_of(
        tiny_run, advantages=AdvantageSettings(kind=kind, group_filter=False), sources=SourceSettings(log=0.5)
    )
    log = OfflineSource(Shelf(logged(tiny_policy, [[1.0]] * groups)), tiny_policy, source="log")
    with pytest.raises(ValueError, match=message):
        tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=[log])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("group-mean", [0.3, 0.25, -0.25]),  # means 0.6 of 0.3 and 0.9, 0.75 of 1 and 0.5
        ("batch-mean", [0.225, 0.325, -0.175]),  # mean 0.675 of all four
        ("leave-one-out", [0.6, 0.5, -0.5]),
        ("no-baseline", [0.9, 1.0, 0.5]),
    ],
)
def test_min_reward_leaves_out_after_the_baseline_was_formed(tiny_run, tiny_policy, kind: str, wanted):
    samples = logged(tiny_policy, [[0.3, 0.9], [1.0, 0.5]])
    settings = settings_of(tiny_run, advantages=AdvantageSettings(kind=kind, group_filter=False, min_reward=0.5))
    share = Share(compared=tuple(samples))
    assert [each.reward for each in share.trained_on(settings)] == [0.9, 1.0, 0.5]
    assert share.credits(settings, beta=0.0).tolist() == pytest.approx(wanted)


def test_a_group_of_which_min_reward_leaves_one_is_trained_on(tiny_run, tiny_policy, tmp_path: Path):
    settings = settings_of(
        tiny_run, advantages=AdvantageSettings(kind="group-mean", group_filter=False, min_reward=0.5)
    )
    scorer = NumberScorer(lambda number: float(number % 2))  # one response of two is left in every group
    tiny_run.run(tiny_policy, tmp_path / "run", settings, scorer=scorer)
    assert [line["num_optimizer_steps"] for line in rows(tmp_path / "run")] == [1, 1, 1]
    stored = read_samples(tmp_path / "run" / "rollouts" / "step-000001.parquet")
    assert [each.metadata["used"] for each in stored] == ["no: its reward is below min_reward", "yes"] * 2


def test_an_evaluation_without_a_score_ends_no_run(tiny_run, tiny_policy, tmp_path: Path, caplog):
    settings = settings_of(
        tiny_run,
        advantages=AdvantageSettings(kind="no-baseline", group_filter=False),
        evaluation=EvaluationSettings(every_steps=1, num_samples=2),
    )
    scorer = NumberScorer(lambda number: None)
    tiny_run.run(tiny_policy, tmp_path / "run", settings, scorer=scorer, held_out=tiny_run.PROBLEMS[:2])
    for line in rows(tmp_path / "run"):
        assert (line["evaluation_num_errors"], line["evaluation_num_problems_unscored"]) == (4, 2)
        assert "evaluation_mean" not in line
    assert "none of 4 responses could be scored" in caplog.text


def test_partial_verdicts_are_said_once_and_accuracy_is_over_all_scored(tiny_run, tiny_policy, tmp_path: Path, caplog):
    class SometimesSure(NumberScorer):
        def score_many(self, problems, responses):
            scores = super().score_many(problems, responses)
            return [replace(each, correct=True) if index % 2 else each for index, each in enumerate(scores)]

    settings = settings_of(tiny_run, advantages=AdvantageSettings(group_filter=False))
    scorer = SometimesSure(lambda number: float(number % 3))
    tiny_run.run(tiny_policy, tmp_path / "run", settings, scorer=scorer, objective=Objective(beta=0.01))
    assert all(line["accuracy"] == 0.5 for line in rows(tmp_path / "run"))
    assert caplog.text.count("right or wrong of 2 of 4 answers only") == 1
