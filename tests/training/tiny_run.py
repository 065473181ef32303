"""A whole run of seconds on the tiny model: used by the tests in their own process, and as a program to be killed."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from klimb.errors import Interrupted
from klimb.losses import Objective
from klimb.policies import load_policy
from klimb.samplers import LocalSampler
from klimb.tasks import Problem, Response, Score
from klimb.training import (
    AdvantageSettings,
    CheckpointSettings,
    IterativeReference,
    LoopSettings,
    OptimizerSettings,
    ReplaySettings,
    RolloutSettings,
    SourceSettings,
    TrainingSettings,
    reference_named,
    train,
)

PROBLEMS = tuple(
    Problem(problem_id=str(number), messages=({"role": "user", "content": f"Say {number}"},), answer="a")
    for number in range(7)
)

BASE = LoopSettings(
    training=TrainingSettings(num_steps=6, num_epochs=2, num_minibatches=2),
    advantages=AdvantageSettings(group_filter=False),
    sampling=RolloutSettings(num_prompts=4, num_samples=4, max_new_tokens=6),
    optimizer=OptimizerSettings(learning_rate=3e-3, warmup_steps=2),
    checkpoints=CheckpointSettings(every_steps=2, keep=2),
)

VARIANTS = {
    "iterative": BASE,
    "schedule-free-ema": replace(
        BASE, optimizer=replace(BASE.optimizer, kind="schedule-free"), reference=reference_named("ema")
    ),
    "every-10-filtered": replace(
        BASE,
        advantages=replace(BASE.advantages, group_filter=True, kind="group-z-score"),
        reference=IterativeReference(every_steps=10),
    ),
    "threshold-recomputed": replace(
        BASE,
        training=replace(BASE.training, log_mu="recomputed"),
        reference=IterativeReference(every_steps=None, kl_threshold=0.1),
    ),
    "fixed-shuffled-tempered": replace(
        BASE,
        advantages=replace(BASE.advantages, shuffle_rewards=True),
        sampling=replace(BASE.sampling, temperature=0.7, top_p=0.9, max_new_tokens=6),
        reference=reference_named("fixed"),
    ),
    "replayed": replace(
        BASE,
        sources=SourceSettings(rollout=0.5, replay=0.5),
        replay=ReplaySettings(max_age=9, rule="hard", max_groups=7),
    ),
    "delayed": replace(BASE, sampling=replace(BASE.sampling, lag=2), reference=IterativeReference(every_steps=10)),
    "delayed-recomputed": replace(
        BASE, training=replace(BASE.training, log_mu="recomputed"), sampling=replace(BASE.sampling, lag=1)
    ),
}


class LetterCounter:
    """Rewards the share of the letter a; correct means that there is one. Sleeps to leave time for a kill."""

    def __init__(self, sleep_seconds: float = 0.0) -> None:
        self.sleep_seconds = sleep_seconds

    def score_many(self, problems: Sequence[Problem], responses: Sequence[Response]) -> list[Score]:
        time.sleep(self.sleep_seconds)
        return [
            Score(reward=response.text.count("a") / response.num_tokens, correct="a" in response.text)
            for response in responses
        ]


def run(policy: Any, folder: Path, settings: LoopSettings, **changes: Any) -> Any:
    """Trains with the plain parts, any of which may be replaced."""
    arguments = {
        "problems": PROBLEMS,
        "objective": Objective(beta=0.01),
        "sampler": LocalSampler(policy),
        "scorer": LetterCounter(),
    } | changes
    return train(policy, settings=settings, folder=folder, **arguments)


def main() -> None:
    model_path, folder, variant, changes = sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    settings = replace(VARIANTS[variant], training=replace(VARIANTS[variant].training, num_steps=changes["num_steps"]))
    policy = load_policy(model_path, dtype="float32", device="cpu")

    def tell(metrics: Any, samples: Any) -> None:
        print(int(metrics["step"]), flush=True)

    try:
        run(
            policy,
            folder,
            settings,
            scorer=LetterCounter(changes.get("sleep_seconds", 0.0)),
            resume=changes.get("resume", False),
            on_step=tell,
        )
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        sys.exit(interruption.status)


if __name__ == "__main__":
    main()
