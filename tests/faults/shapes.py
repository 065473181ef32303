"""The runs of the campaign: a few seconds each, and together of every kind of state that a run has."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BASE = """
seed = 3

[model]
path = {model!r}
dtype = "float32"
device = "cpu"

[task]
kind = "arithmetic"
reward = "task"

[sampling]
num_prompts = 4
num_samples = 4
max_new_tokens = 8

[scoring.format]
pattern = "[aeiou]"
weight = 1.0

[advantages]
group_filter = false

[optimizer]
learning_rate = 3e-3
warmup_steps = 2

[training]
num_steps = {num_steps}
num_threads = 1

[checkpoints]
every_steps = 2

[evaluation]
num_problems = 2
num_samples = 4
every_steps = 2

[run]
loggers = []
report = false
"""

REWARD = '''
def digits(prompt, response, answer, metadata):
    """Share of digits: a reward that a random model earns now and then."""
    return sum(character.isdigit() for character in response) / max(1, len(response))
'''

KNOWN = "Water boils when it is hot enough, and freezes when it is cold enough. " * 3
"""A text that the guard measures the perplexity of."""

NUM_STEPS = 8


@dataclass(frozen=True)
class Shape:
    """A run: what it adds to the run file of all, and what its state has that others lack.

    Attributes:
        settings: after `--set`.
        has: for people.
        added: tables at the end of the run file.
        is_slow: takes several times as long as the others; few faults are done to it.
    """

    has: str
    settings: tuple[str, ...] = ()
    added: str = ""
    is_slow: bool = False


SHAPES: Mapping[str, Shape] = {
    "plain": Shape("rollouts, evaluations, checkpoints", ("objective.recipe=rpg-urkl", "training.num_minibatches=2")),
    "replay": Shape(
        "a replay buffer",
        ("sources.replay=0.5", "replay.max_age=9", "replay.max_groups=7", "training.num_epochs=2"),
    ),
    "delayed": Shape("a queue of delayed rollouts", ("sampling.lag=2", "training.num_epochs=2")),
    "iterative": Shape(
        "a reference with weights of its own, two passes over each batch",
        ("reference.kind=iterative", "reference.every_steps=3", "objective.beta=0.1", "training.num_epochs=2"),
    ),
    "ema": Shape(
        "a schedule-free optimizer, a moving average as the reference",
        ("optimizer.kind=schedule-free", "reference=ema", "objective.recipe=rpg-urkl", "objective.beta=0.1"),
    ),
    "ppo": Shape("a critic with an optimizer of its own", ("objective.recipe=ppo", "critic.learning_rate=0.02")),
    "log": Shape(
        "samples of a log, the place in it",
        ("sources.log=0.5", "log.path=log", "training.num_epochs=2"),
    ),
    "guard": Shape(
        "a guard that measures, goes back and lowers the learning rate",
        ("optimizer.learning_rate=0.05",),
        added="""
[guard]
every_steps = 2
text = "known.txt"
max_perplexity_ratio = 1.02
num_problems = 2
max_new_tokens = 4
max_refusal_fraction = "none"
max_empty_fraction = "none"
max_repetition_fraction = "none"
action = "rollback"
rollback_learning_rate_factor = 0.5
""",
    ),
    "reported": Shape(
        "a reward of one's own in a scoring process, TensorBoard, curves and a report",
        ('task.reward="python:my_reward.digits"', "run.report=true", 'run.loggers=["tensorboard"]'),
        is_slow=True,
    ),
}


@dataclass(frozen=True)
class Stage:
    """What all runs of a campaign are made from.

    Attributes:
        path: of this campaign.
        num_steps: of each run.
    """

    path: Path
    num_steps: int = NUM_STEPS

    @property
    def model(self) -> Path:
        """The tiny model."""
        return self.path / "model"

    @property
    def log(self) -> Path:
        """Rollouts of a run that the shape `log` learns from."""
        return self.path / "log"

    def furnish(self, place: Path, shape: str) -> None:
        """Make a working directory with a run file of this shape and what it reads."""
        place.mkdir(parents=True)
        text = BASE.format(model=str(self.model), num_steps=self.num_steps) + SHAPES[shape].added
        (place / "run.toml").write_text(text, encoding="utf-8")
        (place / "known.txt").write_text(KNOWN, encoding="utf-8")
        (place / "my_reward.py").write_text(REWARD, encoding="utf-8")
        if shape == "log":
            shutil.copytree(self.log, place / "log")


def begin(shape: str) -> tuple[str, ...]:
    """Return the command line that begins a run of this shape."""
    settings = SHAPES[shape].settings
    return ("train", "run.toml", *(("--set", *settings) if settings else ()))
