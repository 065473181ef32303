"""A whole run of seconds in which the tiny model talks with an environment: in a test's process, and as a program."""

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.training import tiny_run
from tests.training.talks import ENDS, running

from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Score
from klimb.tasks.environments import EnvironmentSettings
from klimb.training import (
    AdvantageSettings,
    CheckpointSettings,
    CreditSettings,
    LoopSettings,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    TrainingSettings,
)

BASE = LoopSettings(
    training=TrainingSettings(num_steps=4, num_minibatches=1),
    advantages=AdvantageSettings(group_filter=False),
    sampling=RolloutSettings(num_prompts=3, num_samples=3, max_new_tokens=8, stop=ENDS),
    optimizer=tiny_run.BASE.optimizer,
    checkpoints=CheckpointSettings(every_steps=2, keep=2),
    environment=EnvironmentSettings(),
)

BY_TOKEN = replace(BASE, advantages=AdvantageSettings(kind="no-baseline", group_filter=False))

VARIANTS = {
    "fresh": BASE,
    "replayed": replace(
        BASE,
        sampling=replace(BASE.sampling, num_prompts=4),
        sources=SourceSettings(rollout=0.5, replay=0.5),
        replay=ReplaySettings(max_age=9, rule="hard", max_groups=5),
    ),
    "delayed": replace(BASE, sampling=replace(BASE.sampling, lag=1)),
    "min-reward": replace(BASE, advantages=replace(BASE.advantages, min_reward=0.1)),
    "filtered": replace(BASE, advantages=replace(BASE.advantages, group_filter=True)),
    "turns": replace(BASE, credit=CreditSettings(kind="turn")),
    "turns-minibatches": replace(
        BASE,
        credit=CreditSettings(kind="turn"),
        training=replace(BASE.training, num_minibatches=3, num_epochs=2),
    ),
    "reward-to-go": replace(BY_TOKEN, credit=CreditSettings(kind="reward-to-go", kl_in_reward=0.02, discount=0.95)),
    "gae": replace(BY_TOKEN, credit=CreditSettings(kind="gae", kl_in_reward=0.02, gae_lambda=0.9, whiten=True)),
    "recomputed": replace(BASE, training=replace(BASE.training, log_mu="recomputed")),
    "shuffled": replace(
        BASE,
        advantages=replace(BASE.advantages, shuffle_rewards=True),
        credit=CreditSettings(kind="turn"),
    ),
}


class OwnReward:
    """The environment's reward: that of the turns, together. Sleeps to leave time for a kill."""

    def __init__(self, sleep_seconds: float = 0.0) -> None:
        self.sleep_seconds = sleep_seconds

    def score_many(self, problems, responses):
        time.sleep(self.sleep_seconds)
        return [Score(reward=response.environment_reward or 0.0) for response in responses]


def run(policy: Any, folder: Path, settings: LoopSettings, *, factory: str = "TrustedParrot", **changes: Any) -> Any:
    """Train with the plain parts, any of which may be replaced."""
    sampler = changes.pop("sampler", LocalSampler(policy))
    with ExitStack() as stack:
        dialogues = stack.enter_context(running(policy, factory, sampler=sampler, max_processes=4))
        arguments = {"sampler": sampler, "scorer": OwnReward(), "dialogues": dialogues} | changes
        return tiny_run.run(policy, folder, settings, **arguments)


def main() -> None:
    model_path, folder, variant, changes = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    policy = load_policy(model_path, dtype="float32", device="cpu")
    run(
        policy,
        folder,
        VARIANTS[variant],
        factory=changes["factory"],
        scorer=OwnReward(changes.get("sleep_seconds", 0.0)),
        resume=changes.get("resume", False),
        on_step=lambda metrics, samples: print(int(metrics["step"]), flush=True),
    )


if __name__ == "__main__":
    main()
