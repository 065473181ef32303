"""One side of the comparison of speed: it trains a step at each turn, and reports it.

python -m benchmarks.environments.steps klimb|TRL JSON
"""

# First of all: it says how OpenMP's threads wait, as for `klimb train`.
import klimb.workbench  # isort: skip

import importlib.metadata
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, TrainerCallback

import klimb
from benchmarks.environments.acting import ActingSampler, Actor
from benchmarks.environments.klimb_side import run_tables, write_rows
from benchmarks.environments.lock import make_rows
from benchmarks.environments.trl_side import Watched, make_trainer
from benchmarks.klimb_steps import phases_of
from benchmarks.vs_trl.trl_side import Clock
from benchmarks.vs_trl.turns import Turn
from benchmarks.workload import NEVER, Phases
from klimb.experience import Sample
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.training import RunningRun


@dataclass(frozen=True, kw_only=True)
class Play:
    """What both sides do.

    Attributes:
        model: folder.
        num_prompts: locks of a step.
        num_samples: conversations of each.
        num_turns: of the policy.
        turn_tokens: of one turn at most, on klimb's side.
        most_tokens: of a completion at most, results included, on TRL's side.
        is_acted: the turns are written down instead of drawn, the same ones on both sides.
    """

    model: str
    num_prompts: int = 2
    num_samples: int = 4
    num_turns: int = 5
    turn_tokens: int = 48
    most_tokens: int = 400
    is_acted: bool = False

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(asdict(self))


class KlimbTurns:
    """Hand over after each step of klimb's."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def on_step(self, run: RunningRun, metrics: Mapping[str, float], samples: Sequence[Sample]) -> None:
        """See a step."""
        num_drawn = sum(sample.num_drawn for sample in samples)
        phases = phases_of(metrics, seconds=self._turn.elapsed())
        self._turn.report(
            phases, num_tokens_sampled=num_drawn, num_tokens_trained=num_drawn, reward_mean=metrics["reward_mean"]
        )
        self._turn.wait()


class TrlTurns(TrainerCallback):
    """Hand over after each step of TRL's."""

    def __init__(self, turn: Turn, watched: Watched) -> None:
        self._turn, self._watched, self._clock = turn, watched, Clock()
        self._clock.watch(watched.trainer, "_generate")
        self._clock.watch(watched.trainer, "_generate_and_score_completions")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """See a step."""
        talks = self._watched.talks.pop()
        num_drawn = sum(talk.num_drawn for talk in talks)
        sample = self._clock.seconds["_generate"]
        score = self._clock.seconds["_generate_and_score_completions"] - sample
        self._turn.report(
            Phases(sample=sample, score=score, update=self._turn.elapsed() - sample - score),
            num_tokens_sampled=num_drawn,
            num_tokens_trained=num_drawn,
            reward_mean=sum(talk.reward for talk in talks) / len(talks),
        )
        self._clock.seconds = {}
        self._turn.wait()


def train_klimb(play: Play, turn: Turn, folder: Path) -> None:
    """Train until the parent says no more."""
    tables = run_tables(
        Path(play.model),
        write_rows(make_rows(play.num_prompts), folder / "locks.jsonl"),
        environment={"max_turns": play.num_turns},
        sampling={
            "num_prompts": play.num_prompts,
            "num_samples": play.num_samples,
            "max_new_tokens": play.turn_tokens,
        },
        optimizer={"learning_rate": 1e-6, "weight_decay": 0.0, "warmup_steps": 0},
        training={"num_steps": NEVER},
        checkpoints={"every_steps": NEVER, "at_end": False},
    )
    turn.announce(version=importlib.metadata.version("klimb"))
    turn.wait()
    sampler = make_acting_sampler if play.is_acted else None
    klimb.train(tables, folder=folder / "run", sampler=sampler, callbacks=[KlimbTurns(turn)], show=False)


def make_acting_sampler(policy: Policy, max_batch: int) -> Sampler:
    """Return who says the written turns in klimb."""
    return ActingSampler(policy, Actor(policy.tokenizer), is_read=False)


def train_trl(play: Play, turn: Turn, folder: Path) -> None:
    """Train until the parent says no more."""
    trainer = make_trainer(
        Path(play.model),
        make_rows(play.num_prompts),
        str(folder),
        draw=Actor(AutoTokenizer.from_pretrained(play.model, local_files_only=True)).draw if play.is_acted else None,
        num_generations=play.num_samples,
        max_completion_length=play.most_tokens,
        max_tool_calling_iterations=play.num_turns - 1,
        generation_kwargs={"max_new_tokens": play.turn_tokens},
        max_steps=NEVER,
        learning_rate=1e-6,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        loss_type="grpo",
    )
    trainer.add_callback(TrlTurns(turn, Watched(trainer)))
    turn.announce(version=importlib.metadata.version("trl"))
    turn.wait()
    trainer.train()


def main() -> None:
    """Train as the arguments say."""
    turn, play = Turn(), Play(**json.loads(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        (train_klimb if sys.argv[1] == "klimb" else train_trl)(play, turn, Path(folder))


if __name__ == "__main__":
    main()
