"""What does a policy learn at another temperature? A reward that can be learnt, at 0.7 and 1.3 against 1.

    python -m benchmarks.noise_control.learning --csv after.csv                       # about five minutes of one core
    python -m benchmarks.noise_control.learning --from after.csv --before before.csv --page docs/noise.md

The reward is the share of vowels. Each run ends with answers to the held-out questions, drawn at the temperature of
the rollouts, which is the policy's own, and at 1. `decoupled` is the default recipe with `correction.kind =
"decoupled"`, at temperatures other than 1; at 1, a step a batch, it changes nothing.
"""

import argparse
import csv
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from benchmarks.noise_control.cells import NUM_TOKENS, Cell, run_tables
from benchmarks.noise_control.material import make_tiny_model
from benchmarks.noise_control.rewards import InProcessScorer, RewardFunction, vowels
from benchmarks.noise_control.trial import be_quiet, train_in_place
from benchmarks.page import fill_page, table_of
from klimb.experience import SamplingSettings
from klimb.samplers import LocalSampler
from klimb.tasks import Response
from klimb.workbench.config import build_config
from klimb.workbench.session import Session, make_session

Correction = Literal["default", "decoupled"]

RECIPES = ("rpg-reinforce-urkl", "dapo", "grpo", "ppo", "rloo")
TEMPERATURES = (0.7, 1.0, 1.3)
SEEDS = (1, 2, 3, 4, 5)
NUM_STEPS, LEARNING_RATE = 25, 2e-3
NUM_ANSWERS = 64
"""To each held-out question."""


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Mean reward of the held-out answers before and after training.

    Attributes:
        before_own, after_own: drawn at the temperature of the rollouts.
        before_plain, after_plain: drawn at 1.
    """

    recipe: str
    temperature: float
    correction: Correction
    seed: int
    before_own: float
    after_own: float
    before_plain: float
    after_plain: float


def learn(folder: Path, recipe: str, temperature: float, correction: Correction, seed: int) -> Learnt:
    """Train one run and evaluate it."""
    cell = Cell(recipe=recipe, temperature=temperature, top_p=1.0, origin="fresh", seed=seed)
    tables = run_tables(cell, model=str(folder), log="")
    tables["training"]["num_steps"] = NUM_STEPS
    tables["optimizer"]["learning_rate"] = LEARNING_RATE
    chosen = [] if correction == "default" else [f"correction.kind={correction}"]
    session = make_session(build_config(tables, chosen, source="the learning comparison"))
    before = [mean_reward(session, vowels, at) for at in (temperature, 1.0)]
    train_in_place(session, vowels)
    after = [mean_reward(session, vowels, at) for at in (temperature, 1.0)]
    return Learnt(
        recipe=recipe,
        temperature=temperature,
        correction=correction,
        seed=seed,
        before_own=before[0],
        after_own=after[0],
        before_plain=before[1],
        after_plain=after[1],
    )


def mean_reward(session: Session, reward: RewardFunction, temperature: float) -> float:
    """Return the mean reward of answers to the held-out questions, the same random numbers each time."""
    problems = session.task.held_out
    groups = LocalSampler(session.policy).sample(
        [session.policy.render(problem.messages) for problem in problems],
        num_samples=NUM_ANSWERS,
        settings=SamplingSettings(temperature=temperature, max_new_tokens=NUM_TOKENS),
        generator=torch.Generator().manual_seed(0),
    )
    scores = [
        InProcessScorer(reward).score_many(
            [problem] * NUM_ANSWERS,
            [
                Response(
                    text=session.policy.decode(answer.response_ids),
                    num_tokens=len(answer.response_ids),
                    finish_reason=answer.finish_reason,
                )
                for answer in answers
            ],
        )
        for problem, answers in zip(problems, groups, strict=True)
    ]
    return statistics.fmean(score.reward or 0.0 for group in scores for score in group)


def learn_all() -> Iterator[Learnt]:
    """Run every combination; at temperature 1 there is no difference to correct."""
    with tempfile.TemporaryDirectory(prefix="klimb-learning-") as name:
        folder = Path(name) / "tiny"
        make_tiny_model(folder)
        for recipe in RECIPES:
            for temperature in TEMPERATURES:
                for correction in get_args(Correction)[: 1 if temperature == 1 else None]:
                    for seed in SEEDS:
                        yield learn(folder, recipe, temperature, correction, seed)


def write_as_they_come(path: Path, results: Iterator[Learnt]) -> Iterator[Learnt]:
    """Write each result as it comes, and hand it on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Learnt)], lineterminator="\n")
        writer.writeheader()
        for result in results:
            row = asdict(result)
            writer.writerow(
                {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
            )
            file.flush()
            yield result


def read_results(path: Path) -> list[Learnt]:
    """Return the results of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_as_learnt(row) for row in csv.DictReader(file)]


def _as_learnt(row: dict[str, str]) -> Learnt:
    numbers: dict[str, Any] = {name: float(value) for name, value in row.items() if name.endswith(("_own", "_plain"))}
    return Learnt(
        recipe=row["recipe"],
        temperature=float(row["temperature"]),
        correction=cast(Correction, row["correction"]),
        seed=int(row["seed"]),
        **numbers,
    )


def learning_table(states: Sequence[Sequence[Learnt]]) -> str:
    """Return a line a recipe, temperature and correction: mean over the seeds, and smallest to largest."""
    keys = dict.fromkeys((each.recipe, each.temperature, each.correction) for state in states for each in state)
    rows = []
    for recipe, temperature, correction in keys:
        found = [
            [
                each
                for each in state
                if (each.recipe, each.temperature, each.correction) == (recipe, temperature, correction)
            ]
            for state in states
        ]
        rows.append(
            [
                f"`{recipe}`",
                f"{temperature:g}",
                correction,
                " / ".join(_spread([each.after_own for each in state]) for state in found),
                " / ".join(_spread([each.after_plain for each in state]) for state in found),
            ]
        )
    return table_of(("recipe", "T", "correction", "reward at T", "reward at 1"), rows)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"


def main() -> None:
    """Run or read, and write the table."""
    arguments = parsed()
    if arguments.source is not None:
        results = read_results(arguments.source)
    else:
        results = []
        for result in write_as_they_come(arguments.csv, learn_all()):
            results.append(result)
            print(result, flush=True)
    states = [results]
    if arguments.before is not None:
        states.insert(0, read_results(arguments.before))
    print(learning_table(states))
    if arguments.page is not None:
        fill_page(arguments.page, "learning", learning_table(states))


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = parser.add_mutually_exclusive_group(required=True)
    made.add_argument("--csv", type=Path, help="run, and write a row a run here")
    made.add_argument("--from", dest="source", type=Path, help="read such a file instead")
    parser.add_argument("--before", type=Path, help="results of another state, to stand before these")
    parser.add_argument("--page", type=Path, help="fill the table of this page")
    return parser.parse_args()


if __name__ == "__main__":
    be_quiet()
    main()
