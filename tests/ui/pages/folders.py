"""Runs' folders as a run leaves them, with made-up numbers."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from klimb.findings.evaluations import EvaluationRecord, ProblemRecord

PROVENANCE = {
    "seed": 0,
    "klimb": {"version": "0.1.0", "commit": "0123abc", "uncommitted_changes": False},
    "repository": {"commit": "89abcde", "uncommitted_changes": True},
    "started_at": "2026-01-02T03:04:05+00:00",
    "python": "3.11.2",
    "platform": "Linux x86_64",
    "packages": {"torch": "2.13.0", "absent": None},
}


def config(*, seed: int = 0, recipe: str = "grpo", name: str = "run") -> dict[str, Any]:
    return {
        "seed": seed,
        "model": {"path": "tiny"},
        "task": {"kind": "arithmetic", "digits": 1},
        "objective": {"recipe": recipe, "divergence": "urkl", "beta": 1e-4, "clip": {"kind": "dual", "low": 0.2}},
        "run": {"name": name},
    }


def row(step: int, num_steps: int, noise: random.Random) -> dict[str, float | None]:
    """One step of a run that learns."""
    share = step / num_steps
    return {
        "step": step,
        "num_tokens_sampled": 1000,
        "num_tokens_generated": 1000 * step,
        "elapsed_seconds": 2.0 * step,
        "reward_mean": share + 0.05 * noise.random(),
        "reward_part_correct": share,
        "reward_part_format": 1.0,
        "accuracy": share,
        "groups_dropped_fraction": 0.1 * noise.random(),
        "kl_pi_ref": 0.05 * share,
        "entropy": 2.0 - share,
        "length_mean": 12 + 4 * math.sin(step / 9),
        "length_max": 16,
        "ess_token": 1 - 0.2 * share,
        "ess_sequence": 0.9 - 0.3 * share,
        "clip_low_fraction": 0.02 * noise.random(),
        "clip_high_fraction": 0.03 * noise.random(),
        "w_p50": 1.0,
        "w_max": 2 + noise.random(),
        "grad_norm": None if step == 2 else 1 + noise.random(),
        "learning_rate": 1e-5,
        "loss": -0.1,
        "sample_seconds": 1.0,
        "update_seconds": 0.5,
        "step_seconds": 2.0,
        "tokens_per_second": 500.0,
        "some_other_number": noise.random(),
    }


def problem(name: str, values: Sequence[float], answers: Sequence[str] = ()) -> ProblemRecord:
    texts = tuple(answers) or tuple(f"answer {value:g}" for value in values)
    return ProblemRecord(problem_id=name, question=f"What is {name}?", values=tuple(values), answers=texts)


def evaluation(
    when: Any, step: int, problems: Sequence[ProblemRecord], *, is_accuracy: bool = True, tokens: int | None = None
) -> EvaluationRecord:
    means = [sum(part.values) / len(part.values) for part in problems if part.values]
    mean = sum(means) / len(means)
    return EvaluationRecord(
        when=when,
        step=step,
        num_tokens_generated=1000 * step if tokens is None else tokens,
        elapsed_seconds=2.0 * step,
        mean=mean,
        count=sum(len(part.values) for part in problems),
        num_errors=0,
        num_samples=max(len(part.answers) for part in problems),
        is_accuracy=is_accuracy,
        pass_at={"1": mean, "2": min(1.0, mean + 0.1)} if is_accuracy else {},
        greedy=None,
        length_mean=10.0,
        truncated_fraction=0.0,
        problems=tuple(problems),
    )


BEFORE = evaluation(
    "before", 0, [problem("1+1", [0, 0]), problem("2+2", [1, 1]), *(problem(f"{n}+9", [0, 1]) for n in range(4))]
)
AFTER = evaluation(
    "after", 8, [problem("1+1", [1, 1]), problem("2+2", [0, 0]), *(problem(f"{n}+9", [1, 1]) for n in range(4))]
)


def write_run(
    path: Path,
    *,
    num_steps: int = 8,
    seed: int = 0,
    recipe: str = "grpo",
    evaluations: Sequence[EvaluationRecord] = (BEFORE, AFTER),
    is_finished: bool = True,
    guard: dict[str, Any] | None = None,
) -> Path:
    """A run's folder, the way a run writes it."""
    path.mkdir(parents=True)
    noise = random.Random(seed)
    rows = [row(step, num_steps, noise) for step in range(1, num_steps + 1)]
    (path / "config.json").write_text(json.dumps(config(seed=seed, recipe=recipe, name=path.name)))
    (path / "provenance.json").write_text(json.dumps(PROVENANCE | {"seed": seed}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(made) + "\n" for made in rows))
    if evaluations:
        lines = (json.dumps(asdict(made)) + "\n" for made in evaluations)
        (path / "evaluations.jsonl").write_text("".join(lines))
    if guard is not None:
        (path / "guard.json").write_text(json.dumps(guard))
    if is_finished:
        summary = {
            "name": path.name,
            "task": "arithmetic(+)",
            "num_steps": num_steps,
            "seconds": {"total": 2.5 * num_steps},
        }
        (path / "summary.json").write_text(json.dumps(summary))
    return path
