"""Short real runs of the embedded model, each with one disease: the recordings that test the rules of findings.

    python benchmarks/diseases.py                       # all of them, one after the other
    python benchmarks/diseases.py entropy-collapse      # one
    python benchmarks/diseases.py --record              # also write them, slimmed, into tests/recorded/diseases

Runs go to `--folder` (default runs/diseases); one that is there already is not repeated. What each disease looks like
is in docs/findings.md.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from klimb.experience import SamplingSettings
from klimb.findings.run.rules import find
from klimb.samplers import Completion, Sampler
from klimb.training.run_folder import read_run, write_json
from klimb.ui.terminal.run import print_findings
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.provenance import new_run_folder
from klimb.workbench.run import run_training
from klimb.workbench.session import Session, make_session

RECORDINGS = Path(__file__).parent.parent / "tests" / "recorded" / "diseases"
DIGITS = 6
SUMS = Path("runs/disease-sums.jsonl")
"""Answers to imitate; relative, since the path is part of a recorded configuration."""

BASE: Mapping[str, Any] = {
    "task": {"kind": "arithmetic", "operators": "+", "digits": 1},
    "sampling": {"num_prompts": 6, "num_samples": 4, "max_new_tokens": 16},
    "objective": {"recipe": "rpg-reinforce-urkl"},
    "advantages": {"kind": "group-mean", "group_filter": False},
    "optimizer": {"learning_rate": 2e-5, "warmup_steps": 2, "weight_decay": 0.0},
    "training": {"num_steps": 14, "num_minibatches": 2, "num_threads": 1},
    "checkpoints": {"every_steps": 100_000, "at_end": False},
    "evaluation": {"num_samples": 3, "greedy": False, "every_steps": 7},
    "run": {"loggers": [], "save_rollouts": False, "save_model": False, "report": False},
}
SMALL: Mapping[str, Any] = {"num_prompts": 4, "max_new_tokens": 8}
UNEVALUATED: Mapping[str, Any] = {"every_steps": 0, "at_ends": False}


@dataclass(frozen=True)
class WrongTemperature:
    """Draws at another temperature than it is told, as a server with settings of its own does."""

    sampler: Sampler
    temperature: float

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        settings: SamplingSettings,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        """As the sampler does, at the wrong temperature unless it is asked for the likeliest tokens."""
        wrong = replace(settings, temperature=self.temperature) if settings.temperature else settings
        return self.sampler.sample(prompts, num_samples=num_samples, settings=wrong, generator=generator)


def mistuned(session: Session) -> Session:
    """Return the session with a sampler whose temperature is not the one recorded."""
    return replace(session, sampler=WrongTemperature(session.sampler, temperature=0.8))


@dataclass(frozen=True, kw_only=True)
class Disease:
    """One run: the settings on top of `BASE`, and what is done to the session."""

    name: str
    changes: Mapping[str, Mapping[str, Any]]
    infect: Callable[[Session], Session] = lambda session: session

    def config(self) -> RunConfig:
        """Return the whole configuration."""
        tables = {name: {**BASE.get(name, {}), **self.changes.get(name, {})} for name in {*BASE, *self.changes}}
        return build_config({**tables, "seed": 0}, source=self.name)


DISEASES = (
    Disease(name="healthy", changes={"training": {"num_steps": 10}, "evaluation": {"every_steps": 5}}),
    Disease(
        name="healthy-fixed-reference",
        changes={
            "objective": {"recipe": "grpo", "beta": 0.001},
            "reference": {"kind": "fixed"},
            "advantages": {"kind": "group-z-score"},
            "training": {"num_steps": 8},
            "evaluation": {"every_steps": 0},
        },
    ),
    Disease(
        name="kl-blow-up",
        changes={
            "optimizer": {"learning_rate": 2e-4},
            "objective": {"recipe": "rpg-reinforce-urkl", "clip": {"kind": "none"}},
            "training": {"num_steps": 10},
            "evaluation": {"every_steps": 0},
        },
    ),
    Disease(
        name="entropy-collapse",
        changes={
            "advantages": {"kind": "ones"},
            "optimizer": {"learning_rate": 1.5e-4},
            "training": {"num_steps": 18, "num_minibatches": 4},
        },
    ),
    Disease(
        name="inert-clip",
        changes={"sampling": SMALL, "training": {"num_steps": 6, "num_minibatches": 1}, "evaluation": UNEVALUATED},
    ),
    Disease(
        name="length-hacking",
        changes={
            "task": {
                "reward": "python:benchmarks.disease_rewards.longer_is_better",
                "wording": "{expression}= ? Reply in one word.",
                "system_prompt": "You answer with one number.",
            },
            "sampling": {"max_new_tokens": 32},
        },
    ),
    Disease(name="zero-variance-waste", changes={"task": {"operators": "*", "digits": 3, "num_problems": 200}}),
    Disease(name="reward-saturation", changes={"task": {"reward": "python:benchmarks.disease_rewards.anything_goes"}}),
    Disease(
        name="sampler-gap",
        changes={"training": {"num_steps": 6}, "evaluation": UNEVALUATED},
        infect=mistuned,
    ),
    Disease(
        name="too-little-data",
        changes={
            "task": {"num_problems": 12, "held_out_fraction": 0.5},
            "training": {"num_steps": 10},
            "evaluation": {"every_steps": 0},
        },
    ),
    Disease(
        name="forgetting",
        changes={
            "cloning": {"path": str(SUMS), "num_epochs": 4, "batch_size": 16, "learning_rate": 5e-4},
            "sampling": {**SMALL, "max_new_tokens": 16},
            "training": {"num_steps": 6},
            "evaluation": {"every_steps": 0},
            "guard": {"every_steps": 100, "general": []},
        },
    ),
)


def write_sums() -> None:
    """Write 64 sums of two-digit numbers with their answers, all in one form."""
    pairs = [(a, b) for a in range(10, 18) for b in range(20, 28)]
    rows = [{"prompt": f"What is {a}+{b}?", "response": f"{a}+{b} = {a + b}"} for a, b in pairs]
    SUMS.parent.mkdir(parents=True, exist_ok=True)
    SUMS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(disease: Disease, folder: Path) -> Path:
    """Return the folder of the disease's run, which is trained unless it is there already."""
    path = folder / disease.name
    if (path / "summary.json").exists():
        return path
    write_sums()
    config = disease.config()
    session = disease.infect(make_session(config))
    run_training(session, lambda: new_run_folder(path, config), console=Console(), title=disease.name, resume=False)
    return path


def record(path: Path, recordings: Path) -> Path:
    """Copy of a run what findings read, its numbers rounded, without versions, times and platform."""
    target = recordings / path.name
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "summary.json", "guard.json"):
        if (path / name).exists():
            content = json.loads((path / name).read_text(encoding="utf-8"))
            write_json(target / name, rounded(content))
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        if not (path / name).exists():
            continue
        lines = (path / name).read_text(encoding="utf-8").splitlines()
        slim = [json.dumps(rounded(json.loads(line)), separators=(",", ":")) for line in lines]
        (target / name).write_text("\n".join(slim) + "\n", encoding="utf-8")
    provenance = json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    write_json(target / "provenance.json", {"seed": provenance["seed"], "packages": {}})
    return target


def rounded(content: Any) -> Any:
    """Return the same with every float cut to `DIGITS` significant digits."""
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}")
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, list) else content


def main() -> None:
    """Trains, prints what is found, and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(disease.name for disease in DISEASES)}")
    parser.add_argument("--folder", type=Path, default=Path("runs/diseases"))
    parser.add_argument("--record", action="store_true", help=f"write slim copies into {RECORDINGS}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {disease.name for disease in DISEASES}
    if unknown:
        parser.error(f"no disease is named {', '.join(sorted(unknown))}; see --help")
    for disease in DISEASES:
        if arguments.names and disease.name not in arguments.names:
            continue
        path = run(disease, arguments.folder)
        Console().print(f"\n{disease.name}", style="bold")
        print_findings(Console(), find(read_run(path)))
        if arguments.record:
            record(path, RECORDINGS)


if __name__ == "__main__":
    main()
