from dataclasses import replace
from pathlib import Path

import pytest

from klimb.training import (
    RECIPES,
    AdvantageSettings,
    LoopSettings,
    OptimizerSettings,
    RolloutSettings,
    TrainingSettings,
    read_metrics,
    reference_named,
)

SETTINGS = LoopSettings(
    training=TrainingSettings(num_steps=12, num_mismatch_rows=0),
    advantages=AdvantageSettings(group_filter=False),
    sampling=RolloutSettings(num_prompts=6, num_samples=8, max_new_tokens=6),
    optimizer=OptimizerSettings(learning_rate=1e-2, weight_decay=0.0, warmup_steps=1),
    save_rollouts=False,
)


def rewards_of(tiny_run, policy, folder: Path, recipe: str, **changes) -> list[float]:
    named = RECIPES[recipe]
    settings = replace(
        SETTINGS,
        advantages=replace(SETTINGS.advantages, kind=named.advantages.kind),
        reference=reference_named(named.reference.kind),
        **changes,
    )
    tiny_run.run(policy, folder, settings, objective=named.make_objective())
    return [line["reward_mean"] or 0.0 for line in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("recipe", ["rpg-reinforce-urkl", "rpg-rkl", "grpo", "dapo"])
def test_the_reward_rises_clearly(tiny_run, tiny_policy, tmp_path: Path, recipe: str):
    rewards = rewards_of(tiny_run, tiny_policy, tmp_path, recipe)
    assert rewards[0] < 0.1
    assert rewards[-1] > 0.6


def test_schedule_free_learns_too(tiny_run, tiny_policy, tmp_path: Path):
    optimizer = OptimizerSettings(kind="schedule-free", learning_rate=2e-2, weight_decay=0.0, warmup_steps=2)
    rewards = rewards_of(tiny_run, tiny_policy, tmp_path, "rpg-reinforce-urkl", optimizer=optimizer)
    assert rewards[-1] > 0.6


def test_the_control_with_shuffled_rewards_learns_nothing(tiny_run, tiny_policy, tmp_path: Path):
    settings = replace(SETTINGS, advantages=replace(SETTINGS.advantages, shuffle_rewards=True))
    tiny_run.run(tiny_policy, tmp_path, settings, objective=RECIPES["rpg-reinforce-urkl"].make_objective())
    rewards = [line["reward_mean"] or 0.0 for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert max(rewards) < 0.2
