"""The lock in klimb, through `[environment]`."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import klimb
from benchmarks.environments.talks import Talk
from klimb.experience import Sample, open_store
from klimb.samplers import Sampler

FACTORY = "python:benchmarks.environments.lock.Lock"


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the rows of a data set of TRL's as they are."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_tables(model: Path, data: Path, **tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a run file that trains the lock, with further keys as given."""
    usual: dict[str, dict[str, Any]] = {
        "model": {"path": str(model), "dtype": "float32", "device": "cpu"},
        "task": {
            "kind": "file",
            "path": str(data),
            "question": "prompt",
            "answer": "",
            "reward": "none",
            "held_out_fraction": 0.0,
        },
        "environment": {"factory": FACTORY},
        "objective": {"recipe": "grpo", "beta": 0.0},
        "advantages": {"group_filter": False},
        "evaluation": {"at_ends": False},
        "run": {"loggers": [], "report": False},
    }
    return {name: {**usual.get(name, {}), **tables.get(name, {})} for name in (*usual, *tables)}


def train_in_klimb(
    tables: Mapping[str, Any], folder: Path, *, sampler: Sampler | Callable[..., Sampler] | None = None
) -> list[list[Talk]]:
    """Train, and return the conversations of each step by prompt, the samples of a prompt beside each other."""
    run = klimb.train(tables, sampler=sampler, folder=folder, show=False)
    return read_talks(run.folder)


def read_talks(folder: Path) -> list[list[Talk]]:
    """Return the conversations of a run by its steps."""
    by_step: dict[int, list[Sample]] = defaultdict(list)
    for sample in open_store(folder / "rollouts").samples():
        by_step[sample.policy_version].append(sample)
    return [[talk_of(sample) for sample in sorted(by_step[step], key=_place)] for step in sorted(by_step)]


def talk_of(sample: Sample) -> Talk:
    """Return a recorded conversation."""
    assert sample.reward is not None
    # TRL has rewards in float32.
    reward = torch.tensor(sample.reward, dtype=torch.float32).item()
    return Talk(
        prompt_ids=sample.prompt_ids,
        response_ids=sample.response_ids,
        is_drawn=sample.is_drawn,
        results=tuple(turn.text for turn in sample.turns if turn.role == "tool"),
        reward=reward,
    )


def _place(sample: Sample) -> tuple[str, str]:
    return sample.prompt[-1]["content"], sample.sample_id
