"""A store of answers of the tiny model, and people who like some of them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.workbench.logged import drawn

from klimb.experience import Feedback, Sample, SamplingSettings
from klimb.experience.store import Store
from klimb.policies import load_policy

RUN = """
[model]
path = {model!r}
dtype = "float32"
device = "cpu"

[objective]
recipe = "dro"
beta = 1.0

[sampling]
num_prompts = 40

[optimizer]
learning_rate = 5e-4
warmup_steps = 0

[training]
num_steps = 10

[guard]
text = "none"
general = []

[run]
loggers = []
report = false
"""

SETTINGS = SamplingSettings(max_new_tokens=4)


LIKED = "s\ny"
"""Characters that the tiny model says often."""


def likes(sample: Sample) -> float:
    """1 for an answer that has one of three characters: 45 % of those of the tiny model."""
    return float(any(character in sample.response for character in LIKED))


def say(
    store: Path,
    samples: Sequence[Sample],
    *,
    rate: Callable[[Sample], float] = likes,
    shuffled: bool = False,
    begin: float = 1_000.0,
) -> None:
    """Put the answers into the store, and a rating of each by one of 20 people."""
    values = [rate(sample) for sample in samples]
    if shuffled:
        random.Random(3).shuffle(values)
    ratings = [
        Feedback(
            feedback_id=f"f-{sample.sample_id}",
            sample_id=sample.sample_id,
            value=value,
            user=sample.metadata["user"],
            created_at=begin + place,
        )
        for place, (sample, value) in enumerate(zip(samples, values, strict=True))
    ]
    opened = Store(store)
    opened.append(samples)
    opened.append_feedback(ratings)


NUM_DRAWN = 240


@cache
def _drawn(model: str) -> tuple[Sample, ...]:
    policy = load_policy(model, dtype="float32", device="cpu")
    return tuple(drawn(policy, num_prompts=NUM_DRAWN, num_samples=1, settings=SETTINGS))


def answers(model: str | Path, name: str, *, num_prompts: int, first: int = 0) -> list[Sample]:
    """One answer to each of so many prompts, by the policy of this name."""
    return [
        replace(sample, reward=None, model=name, metadata={"user": f"u{place % 20}"}, created_at=1_000.0 + place)
        for place, sample in enumerate(_drawn(str(model))[first : first + num_prompts])
    ]
