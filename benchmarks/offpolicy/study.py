"""Three questions about experience that the present policy did not just draw, on one-digit sums and the embedded model.

    python benchmarks/offpolicy/study.py logs      # training from logs of the initial policy alone
    python benchmarks/offpolicy/study.py replay    # the same reward from fewer generated tokens
    python benchmarks/offpolicy/study.py lag       # rollouts that are 0, 4, 16 or 64 policy versions old
    python benchmarks/offpolicy/study.py table     # what came out so far, as Markdown

Each run appends one line to `results.jsonl` beside the data (`--folder`, default runs/offpolicy); a run whose line is
there is not repeated, so the study can be stopped and called again, and two of them may share the work by `--seeds`.
"""

import argparse
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tables import print_tables

from klimb.experience import Store
from klimb.findings.evaluations import Progress
from klimb.policies import Policy
from klimb.samplers import LocalSampler
from klimb.tasks import ProblemSet, Scorer
from klimb.training import (
    AdvantageSettings,
    PromptStream,
    RolloutContext,
    RolloutSettings,
    RolloutWorker,
    collect_rollouts,
    read_metrics,
    train,
)
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.measuring import measure
from klimb.workbench.session import make_logs, make_loop_settings, make_objective, make_policy, make_scorer, make_task

OFFLINE_RECIPES = (
    "bc-filtered",
    "bc",
    "rpg-reinforce-urkl",
    "topr",
    "asymre",
    "kimi-pmd",
    "oapl",
    "dro",
    "kto",
)
LAG_RECIPES = ("rpg-reinforce-urkl", "grpo")
LAGS = (0, 1, 4, 16)
"""In collections of 4 optimiser steps: 0, 4, 16 and 64 policy versions."""
REPLAY_ARMS = ((0.0, 16), (0.5, 16), (0.75, 16), (0.75, 28))
"""Share of replay, and steps."""

BASE: Mapping[str, Any] = {
    "task": {"kind": "arithmetic", "operators": "+", "digits": 1},
    "sampling": {"num_prompts": 8, "num_samples": 8, "max_new_tokens": 16},
    "optimizer": {"learning_rate": 1e-5, "warmup_steps": 2, "weight_decay": 0.0},
    "training": {"num_steps": 16, "num_minibatches": 1, "num_mismatch_rows": 0},
    "checkpoints": {"every_steps": 100_000, "at_end": False},
    "evaluation": {"num_samples": 12},
}


@dataclass(frozen=True)
class Bench:
    """The model with its untrained weights, the task, and where results go."""

    policy: Policy
    untrained: Mapping[str, torch.Tensor]
    task: ProblemSet
    scorer: Scorer
    folder: Path

    @torch.no_grad()
    def start_over(self) -> None:
        """Put the untrained weights back."""
        for name, parameter in self.policy.trainable().items():
            parameter.copy_(self.untrained[name])

    @property
    def results(self) -> Path:
        """One JSON line a run."""
        return self.folder / "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: which part of the study, what varies in it, the seed, and the settings on top of `BASE`."""

    part: str
    arm: str
    seed: int
    changes: Mapping[str, Mapping[str, Any]]

    @property
    def key(self) -> tuple[str, str, int]:
        """Two runs of the same key are the same run."""
        return self.part, self.arm, self.seed

    def config(self) -> RunConfig:
        """Return the whole configuration of the run."""
        tables = {name: {**BASE.get(name, {}), **self.changes.get(name, {})} for name in {*BASE, *self.changes}}
        return build_config({**tables, "seed": self.seed}, source=f"{self.part} {self.arm}")


def log_cases(folder: Path, seeds: range) -> Iterator[Case]:
    """Every offline recipe on the logs of the same seed."""
    for seed in seeds:
        for recipe in OFFLINE_RECIPES:
            changes = {
                "objective": {"recipe": recipe},
                "sources": {"log": 1.0},
                "log": {"path": str(folder / f"logs-{seed}")},
            }
            yield Case(part="logs", arm=recipe, seed=seed, changes=changes)


def replay_cases(seeds: range) -> Iterator[Case]:
    """Return the default recipe with a growing share of replay, the number of groups a step being the same."""
    for seed in seeds:
        for share, num_steps in REPLAY_ARMS:
            changes = {
                "objective": {"recipe": "rpg-reinforce-urkl"},
                "advantages": {"kind": "group-z-score", "group_filter": False},
                "sources": {"rollout": 1 - share, "replay": share},
                "replay": {"max_age": 12, "rule": "recent"},
                "training": {"num_steps": num_steps},
                "evaluation": {"every_steps": 4},
            }
            longer = f", {num_steps} steps" if num_steps != BASE["training"]["num_steps"] else ""
            yield Case(part="replay", arm=f"{share:.0%} replay{longer}", seed=seed, changes=changes)


def lag_cases(seeds: range) -> Iterator[Case]:
    """Two recipes at each lag, with settings that differ by the recipe alone."""
    for seed in seeds:
        for lag in LAGS:
            for recipe in LAG_RECIPES:
                changes = {
                    "objective": {"recipe": recipe},
                    "advantages": {"kind": "group-z-score", "group_filter": False},
                    "sampling": {"lag": lag},
                    "training": {"num_steps": 20, "num_minibatches": 4},
                }
                yield Case(part="lag", arm=f"{recipe}, lag {4 * lag}", seed=seed, changes=changes)


def main() -> None:
    """Run one part, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["logs", "replay", "lag", "table"])
    parser.add_argument("--folder", type=Path, default=Path("runs/offpolicy"))
    parser.add_argument("--seeds", default="0:5", help="first:last, the last left out")
    parser.add_argument("--arms", nargs="*", default=[""], help="only arms whose name ends like one of these")
    arguments = parser.parse_args()
    if arguments.part == "table":
        print_tables(arguments.folder / "results.jsonl")
        return
    first, last = (int(bound) for bound in arguments.seeds.split(":"))
    seeds = range(first, last)
    cases = {
        "logs": lambda: log_cases(arguments.folder, seeds),
        "replay": lambda: replay_cases(seeds),
        "lag": lambda: lag_cases(seeds),
    }[arguments.part]()
    config = build_config(dict(BASE), source="the study's base")
    task = make_task(config)
    policy = make_policy(config.model)
    with make_scorer(config, task) as scorer:
        untrained = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
        bench = Bench(policy, untrained, task, scorer, arguments.folder)
        bench.folder.mkdir(parents=True, exist_ok=True)
        if arguments.part == "logs":
            for seed in seeds:
                draw_log(bench, seed)
        for case in cases:
            if case.arm.endswith(tuple(arguments.arms)):
                run_case(bench, case)


def draw_log(bench: Bench, seed: int) -> None:
    """Eight answers of the untrained model to every training problem, as a store; drawn once."""
    folder = bench.folder / f"logs-{seed}"
    if folder.exists():
        return
    bench.start_over()
    settings = RolloutSettings(num_prompts=len(bench.task.train), num_samples=8, max_new_tokens=16)
    collection = collect_rollouts(
        RolloutWorker(
            policy=bench.policy,
            sampler=LocalSampler(bench.policy, max_batch=128),
            scorer=bench.scorer,
            problems=bench.task.train,
        ),
        PromptStream(len(bench.task.train), seed=seed),
        settings=settings,
        advantages=AdvantageSettings(group_filter=False),
        this_round=RolloutContext(seed=seed, step=0, policy_version=0, record_log_ref=False),
        sampling_generator=torch.Generator().manual_seed(10_000 + seed),
        shuffle_generator=torch.Generator(),
    )
    aside = folder.with_name(f".{folder.name}")
    Store(aside).append([replace(sample, source="log") for sample in collection.samples])
    aside.rename(folder)
    print(f"log {seed}: {len(collection.samples)} answers, accuracy {collection.metrics['accuracy']:.3f}", flush=True)


def run_case(bench: Bench, case: Case) -> None:
    """Trains from the untrained weights, evaluates, and appends the line, unless it is there."""
    if case.key in {(line["part"], line["arm"], line["seed"]) for line in read_results(bench.results)}:
        return
    config = case.config()
    bench.start_over()
    sampler = LocalSampler(bench.policy, max_batch=config.sampling.max_batch)
    held_out = bench.task.held_out
    folder = bench.folder / "runs" / f"{case.part}-{re.sub('[^a-z0-9-]+', '-', case.arm)}-{case.seed}-{time.time_ns()}"
    started = time.monotonic()
    train(
        bench.policy,
        sampler,
        bench.scorer,
        make_objective(config),
        problems=bench.task.train,
        settings=make_loop_settings(config),
        folder=folder,
        held_out=held_out,
        logs=make_logs(config, bench.policy),
    )
    seconds = time.monotonic() - started
    measured = measure(bench.policy, sampler, bench.scorer, held_out, config, when="after", progress=Progress())
    lines: list[dict[str, Any]] = list(map(dict, read_metrics(folder / "metrics.jsonl")))
    line: dict[str, Any] = {
        "part": case.part,
        "arm": case.arm,
        "seed": case.seed,
        "mean": measured.mean,
        "greedy": measured.greedy,
        "length": measured.length_mean,
        "num_tokens_sampled": sum(each["num_tokens_sampled"] for each in lines),
        "num_optimizer_steps": sum(each["num_optimizer_steps"] for each in lines),
        "ess_token": lines[-1].get("ess_token"),
        "clip_fraction": sum(lines[-1].get(f"clip_{name}_fraction", 0.0) for name in ("low", "high", "ceiling")),
        "evaluations": [
            [sum(e["num_tokens_sampled"] for e in lines[: n + 1]), each["evaluation_mean"]]
            for n, each in enumerate(lines)
            if "evaluation_mean" in each
        ],
        "seconds": seconds,
    }
    with bench.results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{case.part} {case.arm} seed {case.seed}: {measured.mean:.3f} in {seconds:.0f} s", flush=True)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the lines so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
