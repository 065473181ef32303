from dataclasses import replace
from pathlib import Path

import pytest

from klimb.experience import SamplingSettings
from klimb.losses import RECIPES
from klimb.training import LoopSettings, OptimizerSettings, RolloutSettings, read_metrics, reference_named

SETTINGS = LoopSettings(
    num_steps=12,
    collect=RolloutSettings(num_prompts=6, num_samples=8, sampling=SamplingSettings(max_new_tokens=6)),
    optimizer=OptimizerSettings(learning_rate=1e-2, weight_decay=0.0, warmup_steps=1),
    num_mismatch_rows=0,
    save_rollouts=False,
)


def rewards_of(tiny_run, policy, folder: Path, recipe: str, **changes) -> list[float]:
    named = RECIPES[recipe]
    settings = replace(
        SETTINGS,
        collect=replace(SETTINGS.collect, advantages=named.advantages),
        reference=reference_named(named.reference),
        **changes,
    )
    tiny_run.run(policy, folder, settings, objective=named.objective())
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
    shuffled = replace(SETTINGS.collect, shuffle_rewards=True)
    settings = replace(SETTINGS, collect=shuffled)
    tiny_run.run(tiny_policy, tmp_path, settings, objective=RECIPES["rpg-reinforce-urkl"].objective())
    rewards = [line["reward_mean"] or 0.0 for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert max(rewards) < 0.2
