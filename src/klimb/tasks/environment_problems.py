"""Problems of an environment that makes its own: each is a seed, from which the environment's state follows."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from klimb.declarations import Fraction, LongText, Seed, configurable, require
from klimb.tasks.protocol import MOST_UNUSABLE, Problem, ProblemSet, chat
from klimb.tasks.python_rewards import TASKS_OWN, RewardOrTask, with_reward
from klimb.tasks.splits import split

ENVIRONMENT_SEED = "environment_seed"
"""In a problem's metadata: the seed of the environments that it is given to, whoever asks it and when."""


SEED_BITS = 32
"""Of each seed: NumPy takes no more."""


@configurable
@dataclass(frozen=True, kw_only=True)
class EnvironmentProblemSettings:
    """Problems that the environment makes itself in `reset`: it needs `environment.factory`, and no data.

    Each problem is a seed. Python's and NumPy's global random numbers are seeded with it before the environment is
    made and reset, and `reset` is given it as `seed` if it has that parameter; so a problem is the same one whenever
    it is asked. Training problems and held-out ones have different seeds; whether they differ in more is for the
    environment to say.
    """

    subject: ClassVar[str] = ""

    kind: Literal["environment"] = "environment"
    """What the environment makes in `reset`."""
    question: LongText = ""
    """The user's message; the text that `reset` returns is appended to it."""
    num_problems: Annotated[int, Ge(2), Le(1_000_000)] = 1_000
    """Problems, both sides together."""
    held_out_fraction: Fraction = 0.2
    """Share of the problems kept out of training."""
    seed: Seed = 0
    """Draws the seeds of the problems."""
    reward: RewardOrTask = TASKS_OWN
    """`task` and `environment` are the environment's own reward; `python:module.function` adds yours to it, from a
    process of its own."""
    system_prompt: LongText | None = None
    """System message; without it the model's chat template decides."""
    max_unusable_fraction: Fraction = MOST_UNUSABLE
    """Share of the problems that may be left out because the model cannot be asked them (too long for its positions,
    refused by its chat template); with more the run is refused before its first step. 0 refuses any."""

    def __post_init__(self) -> None:
        require(self.num_problems >= 2, "num_problems", self.num_problems, ">= 2")

    def make_task(self) -> ProblemSet:
        """Return a problem for each seed; no seed is on both sides of the split."""
        drawn = random.Random(self.seed).sample(range(1 << SEED_BITS), self.num_problems)
        train, held_out = split(drawn, self.held_out_fraction)
        task = ProblemSet(
            name="environment",
            train=tuple(map(self._as_problem, train)),
            held_out=tuple(map(self._as_problem, held_out)),
        )
        return with_reward(task, self.reward)

    def _as_problem(self, seed: int) -> Problem:
        return Problem(
            problem_id=f"seed-{seed}",
            messages=chat(self.question, system_prompt=self.system_prompt),
            answer="",
            metadata={ENVIRONMENT_SEED: str(seed)},
        )


def seed_of(name: str) -> int:
    """Return the seed of what a name stands for: 32 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[: SEED_BITS // 8], "big")


def seed_for(problem: Problem, name: str) -> int:
    """Return the seed of the environment of a problem: the problem's own, else that of the name.

    Raises:
        ValueError: the problem's own is no whole number from 0 to 2^32 - 1.
    """
    own = problem.metadata.get(ENVIRONMENT_SEED)
    if own is None:
        return seed_of(name)
    if not (own.isascii() and own.isdigit() and int(own) < 1 << SEED_BITS):
        raise ValueError(
            f"problem {problem.problem_id}: {ENVIRONMENT_SEED} = {own!r}, expected a whole number from 0 to "
            f"{(1 << SEED_BITS) - 1}"
        )
    return int(own)
