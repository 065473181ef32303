"""Runs of seconds on the tiny model, each with one part of training in it: equal to the last bit of each weight."""

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.equality.case import Case
from benchmarks.equality.comparing import Outcome
from benchmarks.equality.outcomes import (
    export_samples,
    flat_settings,
    normalise,
    read_lines,
    read_metrics,
    read_settings,
    read_tensors,
    rename_settings,
    without_machine,
)
from benchmarks.equality.sides import CommandFailed, Place

Settings = Mapping[str, Any]

BASE: Settings = {
    "seed": 1,
    "model.dtype": "float32",
    "model.device": "cpu",
    "task.kind": "arithmetic",
    "task.digits": 1,
    # The tiny model never adds up; it does write a vowel now and then.
    "scoring.format.pattern": "[aeiouAEIOU]",
    "scoring.format.weight": 1.0,
    "sampling.num_prompts": 4,
    "sampling.num_samples": 4,
    "sampling.max_new_tokens": 8,
    "advantages.group_filter": False,
    "optimizer.learning_rate": 3e-3,
    "optimizer.warmup_steps": 2,
    "training.num_steps": 4,
    "training.num_minibatches": 2,
    "training.num_threads": 1,
    "checkpoints.every_steps": 2,
    "evaluation.every_steps": 2,
    "evaluation.num_problems": 3,
    "evaluation.num_samples": 2,
    "run.name": "run",
    "run.folder": "runs",
    "run.loggers": [],
    "run.report": False,
}

FROM_LOG: Settings = {
    "sources.log": 1.0,
    "log.path": "log",
    "training.num_steps": 3,
    "sampling.num_prompts": 5,
}
GUARD: Settings = {
    "guard.every_steps": 1,
    "guard.num_problems": 3,
    "guard.max_new_tokens": 4,
    "guard.max_refusal_fraction": "none",
    "guard.max_empty_fraction": "none",
    "guard.max_repetition_fraction": "none",
    "guard.action": "rollback",
    "guard.rollback_learning_rate_factor": 0.1,
    "optimizer.learning_rate": 0.2,
    "optimizer.warmup_steps": 0,
}
RECIPE = "objective.recipe"

RUNS: Mapping[str, tuple[str, Settings]] = {
    "ppo": (
        "PPO with a critic, GAE, KL in the reward",
        {RECIPE: "ppo", "credit.kl_in_reward": 0.05, "training.num_epochs": 2},
    ),
    "dapo": (
        "DAPO with dynamic sampling and overlong punishment",
        {RECIPE: "dapo", "advantages.group_filter": True, "scoring.overlong.buffer_tokens": 3},
    ),
    "kto": ("KTO on a fixed log", {RECIPE: "kto", **FROM_LOG}),
    "topr": ("TOPR on a fixed log", {RECIPE: "topr", **FROM_LOG}),
    "bc": ("behaviour cloning of a fixed log", {RECIPE: "bc", **FROM_LOG}),
    "cloning": (
        "a warm-up by cloning before the first collection",
        {RECIPE: "rloo", "cloning.path": "pairs.jsonl", "cloning.batch_size": 4, "cloning.learning_rate": 1e-3},
    ),
    "replay-schedule-free": (
        "replayed rollouts and Schedule-Free AdamW",
        {
            RECIPE: "rpg-reinforce-urkl",
            "optimizer.kind": "schedule-free",
            "sources.replay": 0.5,
            "replay.rule": "hard",
            "replay.max_groups": 5,
        },
    ),
    "lora-ema": (
        "a low-rank adapter and a moving average as reference",
        {
            RECIPE: "rpg-rkl",
            "objective.beta": 0.05,
            "reference.kind": "ema",
            "reference.decay": 0.9,
            "model.lora.rank": 4,
            "optimizer.learning_rate": 1e-2,
        },
    ),
    "lag-correction": (
        "rollouts two collections late, truncated importance sampling, recomputed log_mu",
        {
            RECIPE: "grpo",
            "sampling.lag": 2,
            "correction.kind": "truncate",
            "correction.high": 1.5,
            "correction.off_policy_mask": 2.0,
            "training.log_mu": "recomputed",
        },
    ),
    "tempered-own-reward": (
        "temperature and top-p, a reward of one's own, many epochs, the square root of the effective sample size",
        {
            RECIPE: "cispo",
            "task.reward": "python:my_reward.share_of_letters",
            "sampling.temperature": 0.8,
            "sampling.top_p": 0.9,
            "training.num_epochs": 2,
            "training.micro_batch_tokens": 128,
            "optimizer.ess_scaling": "token",
            "reference.kind": "iterative",
            "reference.kl_threshold": 0.01,
            "reference.every_steps": "never",
        },
    ),
    "guard-rollback": ("a guard that goes back and on with a lower learning rate", {RECIPE: "rloo", **GUARD}),
    "mixed-sources": (
        "rollouts and a log in one batch",
        {RECIPE: "rpg-reinforce-rkl", **FROM_LOG, "sources.log": 0.5, "sampling.max_new_tokens": 6},
    ),
}


def run_text(place: Place, settings: Settings) -> str:
    """Write settings as TOML, a dotted key on each line."""
    everything = {"model.path": str(place.material / "tiny-model"), **BASE, **settings}
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in everything.items())


def measure_run(settings: Settings, place: Place) -> Outcome:
    """Train and read all that the run wrote."""
    prepare(place, settings)
    place.klimb("train", "run.toml")
    return run_outcome(place, check_has_moved(place))


def check_has_moved(place: Place) -> Path:
    """Return the run's folder if training changed its model: a run without an update is equal whatever is broken.

    Raises:
        CommandFailed: it did not.
    """
    run = place.folder / "runs" / "run"
    if read_tensors(run / "model") == read_tensors(place.material / "tiny-model"):
        raise CommandFailed(
            f"{place.side.name}: the run ended with the model that it began with; the case shows nothing"
        )
    return run


def prepare(place: Place, settings: Settings) -> None:
    """Write the run file and what it names."""
    place.write("run.toml", run_text(place, settings))
    for name in ("my_reward.py", "pairs.jsonl"):
        shutil.copy(place.material / name, place.folder / name)
    if "log.path" in settings:
        place.klimb("import", str(place.material / "log.jsonl"), "--into", "log", "--as", "table")


def run_outcome(place: Place, run: Path, *, samples: bool = True) -> Outcome:
    """Read tensors, metrics, evaluations, rollouts and settings of a run's folder."""
    is_old = place.is_old
    outcome: dict[str, Any] = {
        "model": read_tensors(run / "model"),
        "checkpoints": read_tensors(run / "checkpoints"),
        "metrics": read_metrics(run / "metrics.jsonl", is_old=is_old),
        "evaluations": without_machine(read_lines(run / "evaluations.jsonl"), is_old=is_old),
        "settings": read_settings(run / "config.json", is_old=is_old),
    }
    for name in ("guard", "summary"):
        if (run / f"{name}.json").exists():
            content = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
            outcome[name] = without_machine(content, is_old=is_old)
    if samples and (run / "rollouts").exists():
        outcome |= export_samples(place, str(run.relative_to(place.folder)))
    return outcome


def measure_resume(place: Place) -> Outcome:
    """Train to the middle, then resume to the end."""
    settings = {
        RECIPE: "rpg-reinforce-urkl",
        "optimizer.kind": "schedule-free",
        "reference.kind": "ema",
        "reference.decay": 0.9,
        "sources.replay": 0.25,
        "training.num_steps": 3,
    }
    prepare(place, settings)
    place.klimb("train", "run.toml")
    place.klimb("train", "--resume", "runs/run", "--set", "training.num_steps=6")
    return run_outcome(place, check_has_moved(place))


def measure_recipe(name: str, place: Place) -> Outcome:
    """Train two steps with a recipe as it is: its configuration, its update, its page."""
    short = {
        RECIPE: name,
        "training.num_steps": 2,
        "evaluation.every_steps": 0,
        "evaluation.at_ends": False,
        "checkpoints.every_steps": 1000,
        "checkpoints.at_end": False,
        "run.save_rollouts": False,
        "optimizer.warmup_steps": 0,
    }
    prepare(place, short)
    place.klimb("train", "run.toml")
    run = check_has_moved(place)
    return {
        "model": read_tensors(run / "model"),
        "metrics": read_metrics(run / "metrics.jsonl", is_old=place.is_old),
        "settings": read_settings(run / "config.json", is_old=place.is_old),
        **shown_recipe(place.klimb("recipes", "show", name).out, place),
    }


def shown_recipe(text: str, place: Place) -> Outcome:
    """Split what `klimb recipes show` prints: words on the recipe, and its settings as TOML from `[objective]` on."""
    words, mark, settings = text.partition("[objective]")
    flat = flat_settings(tomllib.loads(mark + settings))
    return {"shown settings": rename_settings(flat, is_old=place.is_old), "shown text": normalise(words, place)}


def measure_demo(place: Place) -> Outcome:
    """Train `make demo`'s file on the embedded model for six steps; its evaluations are shortened."""
    settings = (
        "training.num_steps=6",
        "training.max_seconds='none'",
        "training.num_threads=1",
        "evaluation.num_samples=2",
        "run.report=false",
    )
    place.klimb("demo", "--folder", "demo", "--set", *settings)
    return run_outcome(place, place.folder / "demo")


def _of(name: str, about: str, measure: Callable[[Place], Outcome], *, is_long: bool = False) -> Case:
    return Case(name=name, about=about, measure=measure, is_long=is_long)


TRAINING_CASES: tuple[Case, ...] = (
    *(_of(name, about, partial(measure_run, settings)) for name, (about, settings) in RUNS.items()),
    _of("resume", "a resume in the middle of a run with replay, Schedule-Free and EMA", measure_resume),
    _of("demo", "make demo's file, six steps on the embedded model", measure_demo, is_long=True),
)
