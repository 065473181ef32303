from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from klimb.experience import Sample, read_samples
from klimb.experience.feedback import Feedback
from klimb.experience.samples_in_memory import store_in_memory
from klimb.experience.store import Store
from klimb.losses import Objective
from klimb.policies import Policy, load_policy
from klimb.tasks import RewardSettings
from klimb.training import (
    AdvantageSettings,
    CheckpointError,
    OfflineSource,
    OptimizerSettings,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    read_metrics,
    recipe_named,
    reference_named,
    score_samples,
    without_wall_clock,
)
from klimb.training.sources.offline import check_logs

LOG_ONLY = SourceSettings(log=1.0)


class Shelf:
    """Groups in memory, with the `where` of log_mu's provenance alone."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.by_group: dict[str, list[Sample]] = {}
        for sample in samples:
            self.by_group.setdefault(sample.group_id, []).append(sample)

    def count(self, where: str = "") -> int:
        samples = [sample for group in self.by_group.values() for sample in group]
        if "sampling.temperature is null" in where:
            return sum(sample.sampling is None for sample in samples)
        unusable = [each for each in samples if each.log_mu_provenance not in ("sampler", "recomputed")]
        return len(unusable) if "log_mu_provenance not in" in where else len(samples)

    def group_ids(self, *, where: str = "") -> list[str]:
        return sorted(self.by_group)

    def groups(self, group_ids: Sequence[str], *, where: str = "") -> list[list[Sample]]:
        return [self.by_group[name] for name in group_ids]


@pytest.fixture
def rollouts(tiny_run, tiny_policy, tmp_path: Path) -> list[Sample]:
    """What the untrained policy drew at one step: 8 groups of 4."""
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=1),
        sampling=replace(tiny_run.BASE.sampling, num_prompts=7),
        optimizer=OptimizerSettings(learning_rate=1e-12),
    )
    tiny_run.run(tiny_policy, tmp_path / "earlier", settings)
    return read_samples(tmp_path / "earlier" / "rollouts" / "step-000001.parquet")


def as_text(sample: Sample) -> Sample:
    return replace(
        sample, log_mu=None, prompt_ids=(), response_ids=(), log_mu_provenance="absent", log_ref=None, tokenizer=""
    )


class NoSampler:
    """Drawing would be a mistake."""

    def sample(self, prompts, *, num_samples, settings, generator):
        raise AssertionError("a run on logs alone draws nothing")


def log_settings(tiny_run, **changes):
    return replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=4, num_epochs=1, num_minibatches=2),
        sources=LOG_ONLY,
        **changes,
    )


def test_a_run_on_logs_alone_draws_nothing_and_raises_the_likelihood_of_what_was_better(
    tiny_run, tiny_policy, rollouts, tmp_path: Path
):
    scored = [sample for sample in rollouts if sample.reward is not None]
    best = [sample for sample in scored if sample.reward > sum(each.reward for each in scored) / len(scored)]
    before = score_samples(tiny_policy, best, max_tokens=4096)
    logs = [OfflineSource(Shelf(rollouts), tiny_policy, source="log")]
    settings = replace(
        log_settings(tiny_run), training=replace(log_settings(tiny_run).training, num_epochs=1, num_minibatches=1)
    )
    tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs, sampler=NoSampler())
    after = score_samples(tiny_policy, best, max_tokens=4096)
    gains = [sum(late) - sum(early) for late, early in zip(after, before, strict=True)]
    assert sum(gains) / len(gains) > 0.01
    assert not (tmp_path / "run" / "rollouts").exists()
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {line["num_tokens_sampled"] for line in lines} == {0}
    # 7 groups, 4 a step: every second step ends an epoch, and no group is in a batch twice. Where the next epoch begins
    # with one that the batch holds already, that is left out.
    counts = [line["log/num_groups"] for line in lines]
    assert counts[::2] == [4, 4]
    assert set(counts[1::2]) <= {3, 4}
    assert lines[0]["log/w_p50"] == pytest.approx(1.0, abs=1e-4)  # the policy that drew the log


def test_a_loss_with_a_ratio_refuses_samples_without_log_mu_and_names_what_can_use_them(
    tiny_run, tiny_policy, rollouts, tmp_path: Path
):
    mixed = [as_text(sample) if index % 4 == 0 else sample for index, sample in enumerate(rollouts)]
    logs = [OfflineSource(Shelf(mixed), tiny_policy, source="log")]
    with pytest.raises(ValueError, match=r"7 of 28 samples of the log .* asymre.* klimb experience score"):
        tiny_run.run(tiny_policy, tmp_path / "run", log_settings(tiny_run), logs=logs)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["asymre", "dro", "kto", "bc", "bc-filtered"])
def test_recipes_without_a_ratio_learn_from_text_alone(tiny_run, tiny_policy, rollouts, tmp_path: Path, name: str):
    recipe = recipe_named(name)
    texts = [replace(as_text(sample), reward=float("a" in sample.response)) for sample in rollouts]
    settings = log_settings(
        tiny_run,
        sampling=RolloutSettings(num_prompts=4),
        advantages=recipe.advantages,
        reference=recipe.reference,
    )
    logs = [OfflineSource(Shelf(texts), tiny_policy, source="log")]
    before = {name: parameter.detach().clone() for name, parameter in tiny_policy.trainable().items()}
    metrics = tiny_run.run(
        tiny_policy, tmp_path / "run", settings, logs=logs, objective=recipe.make_objective()
    ).metrics
    assert metrics["num_optimizer_steps"] == 2
    assert metrics["log/num_refused"] == 0
    assert "ess_token" not in metrics and "log/ess_token" not in metrics
    assert any(not torch.equal(before[name], parameter) for name, parameter in tiny_policy.trainable().items())


@pytest.mark.parametrize(("rewards", "side"), [((1.0, 1.0), "good"), ((0.0, 0.5), "bad"), ((None, 1.0), "good")])
def test_kto_refuses_ratings_of_one_side_at_the_start(
    tiny_run, tiny_policy, rollouts, tmp_path: Path, rewards: tuple[float | None, float], side: str
):
    recipe = recipe_named("kto")
    rated = [replace(as_text(each), reward=rewards[number % 2]) for number, each in enumerate(rollouts)]
    logs = [OfflineSource(store_in_memory(rated), tiny_policy, source="log")]
    settings = log_settings(tiny_run, advantages=recipe.advantages, reference=recipe.reference)
    with pytest.raises(ValueError, match=f"every rating of the log is {side}"):
        tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs, objective=recipe.make_objective())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_kto_takes_ratings_of_both_sides_in_two_sources_or_with_fresh_answers(tiny_policy, rollouts):
    good = [replace(as_text(each), reward=1.0) for each in rollouts]
    bad = [replace(as_text(each), reward=0.0) for each in rollouts]
    liked = OfflineSource(store_in_memory(good), tiny_policy, source="log")
    disliked = OfflineSource(store_in_memory(bad), tiny_policy, source="feedback")
    both = SourceSettings(log=0.5, feedback=0.5)
    check_logs([liked, disliked], both, needs_log_mu=False, num_prompts=4, needs_both_sides=True)
    mixed = SourceSettings(rollout=0.5, log=0.5)
    check_logs([liked], mixed, needs_log_mu=False, num_prompts=4, needs_both_sides=True)
    check_logs([liked], LOG_ONLY, needs_log_mu=False, num_prompts=4)  # another loss clones them


def test_cloning_needs_no_reward_and_every_other_recipe_does(tiny_run, tiny_policy, rollouts, tmp_path: Path):
    unrated = [replace(as_text(sample), reward=None) for sample in rollouts]
    for advantages, num_steps in (("zero", 2), ("batch-mean", 0)):
        settings = log_settings(
            tiny_run,
            sampling=RolloutSettings(num_prompts=4),
            advantages=AdvantageSettings(kind=advantages, group_filter=False),
            reference=reference_named("behaviour"),
        )
        logs = [OfflineSource(Shelf(unrated), tiny_policy, source="log")]
        objective = recipe_named("bc").make_objective()
        result = tiny_run.run(tiny_policy, tmp_path / advantages, settings, logs=logs, objective=objective)
        assert result.metrics["num_optimizer_steps"] == num_steps


def test_samples_whose_ids_are_of_another_text_are_refused_counted_and_left_out(
    tiny_run, tiny_policy, rollouts, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    spoilt = [
        replace(sample, response="something else") if index == 0 else sample for index, sample in enumerate(rollouts)
    ]
    logs = [OfflineSource(Shelf(spoilt), tiny_policy, source="log")]
    settings = replace(
        log_settings(tiny_run),
        training=replace(log_settings(tiny_run).training, num_steps=1),
        sampling=replace(log_settings(tiny_run).sampling, num_prompts=7),
    )
    metrics = tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs).metrics
    assert metrics["log/num_refused"] == 1
    assert spoilt[0].sample_id in caplog.text


def test_logged_and_fresh_groups_are_told_apart_and_never_compared(tiny_run, tiny_policy, rollouts, tmp_path: Path):
    # All logged rewards are 100: within their own groups and source they are even, and nothing is learnt from them.
    constant = [replace(sample, reward=100.0) for sample in rollouts]
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_steps=1, num_epochs=1, num_minibatches=1),
        advantages=replace(tiny_run.BASE.advantages, kind="batch-mean"),
        sources=SourceSettings(rollout=0.5, log=0.5),
    )
    logs = [OfflineSource(Shelf(constant), tiny_policy, source="log")]
    metrics = tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs).metrics
    assert metrics["log/reward_mean"] == 100
    assert metrics["rollout/reward_mean"] < 1
    assert metrics["zero_advantage_fraction"] >= 0.5
    assert metrics["rollout/num_groups"] == metrics["log/num_groups"] == 2


def test_the_behaviour_policy_as_reference_makes_x_the_log_weight(tiny_run, tiny_policy, rollouts, tmp_path: Path):
    settings = log_settings(tiny_run, reference=reference_named("behaviour"))
    logs = [OfflineSource(Shelf(rollouts), tiny_policy, source="log")]
    tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs, objective=Objective(beta=0.1, clip="none"))
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    # v = 1, so that w·x − w + v = w·log w − w + 1, and it is not 0 once the policy has moved.
    assert last["kl_pi_ref"] > 1e-6
    assert last["kl_mu_pi"] > 1e-6


def test_cloning_is_maximum_likelihood_whether_or_not_the_log_knows_its_log_mu(
    tiny_run, tiny_model_path, rollouts, tmp_path: Path
):
    weights = []
    unknown = [replace(sample, log_mu=None, log_mu_provenance="absent") for sample in rollouts]
    for name, samples in (("known", rollouts), ("unknown", unknown)):
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        settings = log_settings(
            tiny_run,
            sampling=RolloutSettings(num_prompts=7),
            advantages=AdvantageSettings(kind="zero", group_filter=False),
            reference=reference_named("behaviour"),
        )
        logs = [OfflineSource(Shelf(samples), policy, source="log")]
        objective = recipe_named("bc").make_objective()
        tiny_run.run(policy, tmp_path / name, settings, logs=logs, objective=objective)
        weights.append(policy.trainable())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_share_without_its_store_and_a_store_without_a_share_are_refused(
    tiny_run, tiny_policy, rollouts, tmp_path: Path
):
    logs = [OfflineSource(Shelf(rollouts), tiny_policy, source="log")]
    with pytest.raises(ValueError, match="the share of log is 1, and no log is given"):
        tiny_run.run(tiny_policy, tmp_path, log_settings(tiny_run))
    with pytest.raises(ValueError, match="a log is given, and its share is 0"):
        tiny_run.run(tiny_policy, tmp_path, tiny_run.BASE, logs=logs)


def test_an_empty_log_is_refused(tiny_policy):
    with pytest.raises(ValueError, match="the log holds no sample where reward > 7"):
        OfflineSource(Shelf([]), tiny_policy, source="log", where="reward > 7")


def test_replay_uses_earlier_groups_and_says_how_old_they_are(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_epochs=1, num_minibatches=2),
        sources=SourceSettings(rollout=0.5, replay=0.5),
        replay=ReplaySettings(max_age=8),
    )
    tiny_run.run(tiny_policy, tmp_path, settings)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["num_samples"] for line in lines] == [16, 8, 8, 8, 8, 8]  # nothing to replay at first
    assert "replay/age_mean" not in lines[0]
    assert lines[1]["replay/age_mean"] == 2  # two optimiser steps ago
    assert all(0 < line["replay/age_max"] <= 8 for line in lines[1:])
    assert all(line["rollout/age_max"] == 0 for line in lines)
    assert lines[-1]["replay/num_dropped"] > 0
    assert all(line["replay/kl_mu_pi"] > 0 for line in lines[1:])


def test_a_lag_trains_each_batch_that_many_collections_late(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(
        tiny_run.BASE,
        training=replace(tiny_run.BASE.training, num_epochs=1, num_minibatches=2),
        sampling=replace(tiny_run.BASE.sampling, lag=2),
    )
    tiny_run.run(tiny_policy, tmp_path, settings)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    # Three batches of version 0 wait at first; from then on a batch is 2 collections of 2 optimiser steps old.
    assert [line["rollout/age_mean"] for line in lines] == [0, 2, 4, 4, 4, 4]
    assert [line["num_samples"] for line in lines] == [48, 16, 16, 16, 16, 16]
    names = [{sample.group_id for sample in read_samples(path)} for path in sorted((tmp_path / "rollouts").iterdir())]
    assert [len(each) for each in names] == [12, 4, 4, 4, 4, 4]


def test_a_run_on_a_log_resumes_bit_for_bit(tiny_run, tiny_model_path, rollouts, tmp_path: Path):
    settings = replace(
        log_settings(tiny_run),
        training=replace(log_settings(tiny_run).training, num_steps=6),
        sources=SourceSettings(rollout=0.25, replay=0.25, log=0.5),
    )

    def go(name: str, num_steps: int, *, resume: bool = False) -> Policy:
        policy = load_policy(str(tiny_model_path), dtype="float32", device="cpu")
        logs = [OfflineSource(Shelf(rollouts), policy, source="log")]
        tiny_run.run(
            policy,
            tmp_path / name,
            replace(settings, training=replace(settings.training, num_steps=num_steps)),
            logs=logs,
            resume=resume,
        )
        return policy

    straight = go("straight", 6).trainable()
    go("torn", 3)
    torn = go("torn", 6, resume=True).trainable()
    assert all(torch.equal(straight[name], torn[name]) for name in straight)
    lines = [
        [without_wall_clock(line) for line in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("straight", "torn")
    ]
    assert lines[0] == lines[1]
    assert lines[0][-1]["log/epoch"] > 0 and lines[0][-1]["replay/num_groups"] > 0


def test_a_log_that_changed_since_cannot_be_resumed(tiny_run, tiny_policy, rollouts, tmp_path: Path):
    settings = replace(log_settings(tiny_run), training=replace(log_settings(tiny_run).training, num_steps=2))
    logs = [OfflineSource(Shelf(rollouts), tiny_policy, source="log")]
    tiny_run.run(tiny_policy, tmp_path, settings, logs=logs)
    fewer = [OfflineSource(Shelf(rollouts[4:]), tiny_policy, source="log")]
    with pytest.raises(CheckpointError, match=r"logs\.log: '7 groups, .* in the checkpoint, '6 groups"):
        tiny_run.run(
            tiny_policy,
            tmp_path,
            replace(settings, training=replace(settings.training, num_steps=4)),
            logs=fewer,
            resume=True,
        )


@pytest.mark.parametrize("reward", [1e308, -1e308, float("nan"), float("inf")])
def test_a_logged_reward_of_which_no_sum_can_be_made_is_refused_counted_and_left_out(
    tiny_run, tiny_policy, rollouts, tmp_path: Path, caplog: pytest.LogCaptureFixture, reward: float
):
    spoilt = [replace(sample, reward=reward) if index == 0 else sample for index, sample in enumerate(rollouts)]
    logs = [OfflineSource(Shelf(spoilt), tiny_policy, source="log")]
    settings = replace(
        log_settings(tiny_run),
        training=replace(log_settings(tiny_run).training, num_steps=1),
        sampling=replace(log_settings(tiny_run).sampling, num_prompts=7),
    )
    metrics = tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs).metrics
    assert metrics["log/num_refused"] == 1
    assert abs(metrics["log/reward_mean"]) < 1e15
    assert f"its reward {reward:g} is not within ±1e+15" in caplog.text


def test_logged_samples_that_do_not_say_their_rewards_cannot_be_scaled_and_are_refused_first(
    tiny_run, tiny_policy, rollouts, tmp_path: Path
):
    rewards = {"style": RewardSettings(reward="task", scale="group")}
    settings = replace(log_settings(tiny_run), rewards=rewards)
    said = [
        replace(
            sample,
            metadata={**sample.metadata, "reward/style": repr(sample.reward)} if index else sample.metadata,
            reward_parts={"style": sample.reward},
        )
        for index, sample in enumerate(rollouts)
    ]
    store = Store(tmp_path / "store")
    store.append(said)
    store.append_feedback([Feedback(feedback_id="1", sample_id=said[-1].sample_id, value=9.5)])
    logs = [OfflineSource(store, tiny_policy, source="log")]
    with pytest.raises(ValueError, match=r"^2 samples of the log say nothing of rewards\.style, or were rated"):
        tiny_run.run(tiny_policy, tmp_path / "run", settings, logs=logs)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
