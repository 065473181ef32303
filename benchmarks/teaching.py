"""What the policy learns from environments: a warm start on conversations, then reinforcement, over seeds.

    python -m benchmarks.teaching                                # three environments, 5 seeds, about an hour
    python -m benchmarks.teaching --steps 6 --prompts 3 --problems 12
    python -m benchmarks.teaching --tasks guessing --seeds 2 --steps 6

The run files are those of `examples/`. Each environment has one warm start (`[cloning]`, and no step that changes
anything), whose model every seed then takes further by reinforcement without cloning. Held-out problems are evaluated
before and after, so that what each of them changed stands apart. Two processes of one thread run beside each other. The
table has the mean over seeds of reinforcement and its 95 % interval; the change is paired by seed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.page import table_of
from klimb.findings.statistics import Interval, mean_interval, paired_interval

EXAMPLES = Path(__file__).parents[1] / "examples"
TASKS = ("calculator", "guessing", "sql")


def main() -> None:
    """Run all, and print the table and each seed's curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the warm starts are kept, for another time")
    arguments = parser.parse_args()
    jobs = [(task, seed) for seed in range(arguments.seeds) for task in arguments.tasks]
    with tempfile.TemporaryDirectory() as aside, ThreadPoolExecutor(arguments.processes) as pool:
        place = (arguments.folder or Path(aside)) / "examples"
        shutil.copytree(EXAMPLES, place, dirs_exist_ok=True)
        bases = list(pool.map(lambda task: warm_up(place, task, arguments), arguments.tasks))
        found = pool.map(lambda job: teach(place, job[0], job[1], arguments), jobs)
        results: dict[tuple[str, int], dict] = {}
        for (task, seed), taught in zip(jobs, found, strict=True):
            results[task, seed] = bases[arguments.tasks.index(task)] | taught
            print_seed(task, seed, results[task, seed])
    print(
        table_of(
            ["environment", "base model", "after the warm start", "after reinforcement", "change"],
            [row_of(task, [results[task, seed] for seed in range(arguments.seeds)]) for task in arguments.tasks],
        )
    )


def print_seed(task: str, seed: int, found: dict) -> None:
    """Print what one seed came to."""
    curve = " ".join(f"{reward:.2f}" for reward in found["curve"])
    ends = " -> ".join(f"{found[name]:.3f}" for name in ("base", "warm", "after"))
    print(f"{task} seed {seed}: {ends}; reward by step {curve}", flush=True)


def warm_up(place: Path, task: str, arguments: argparse.Namespace) -> dict:
    """Clone the conversations of the example, and return what the model was worth before; once in a folder."""
    evaluations = place / "runs" / f"{task}-warm" / "evaluations.jsonl"
    if (evaluations.parent / "summary.json").exists():
        return {"base": means(evaluations)["before"]}
    # A run has a step at least: one that changes nothing.
    idle = ["training.num_steps=1", "training.num_minibatches=1", "sampling.num_prompts=1", "sampling.num_samples=2"]
    told = [*idle, "optimizer.learning_rate=1e-12", f"run.name={task}-warm", "run.report=false"]
    train(place, task, [*shared(arguments, seed=0), *told])
    return {"base": means(evaluations)["before"]}


def teach(place: Path, task: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Return the evaluations of one seed of reinforcement, and its rewards by step."""
    model, name = place / "runs" / f"{task}-warm" / "model", f"{task}-{seed}"
    taught = [f"model.path={model}", "model.chat_template=templates/smollm2-tools.jinja", f"run.name={name}"]
    # Without refills each step draws as much.
    size = [f"training.num_steps={arguments.steps}", f"sampling.num_prompts={arguments.prompts}"]
    size += ["advantages.max_refills=0", "checkpoints.every_steps=1000", "run.save_model=false"]
    train(place, task, [*shared(arguments, seed=seed), *taught, *size], without_cloning=True)
    run = place / "runs" / name
    ends = means(run / "evaluations.jsonl")
    curve = [json.loads(line).get("reward_mean", float("nan")) for line in (run / "metrics.jsonl").open()]
    shutil.rmtree(run)
    return {"warm": ends["before"], "after": ends["after"], "curve": curve}


def shared(arguments: argparse.Namespace, *, seed: int) -> list[str]:
    """Return what all runs of a seed are told."""
    return [
        f"seed={seed}",
        "training.num_threads=1",
        f"evaluation.num_problems={arguments.problems}",
        "evaluation.greedy=false",
        f"evaluation.seed={seed}",
    ]


def train(place: Path, task: str, overrides: Sequence[str], *, without_cloning: bool = False) -> None:
    """Run one training in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    file = place / f"{task}.toml"
    if without_cloning:
        text = file.read_text()
        start = text.index("[cloning]")
        file = place / f"{task}-taught.toml"
        file.write_text(text[:start] + text[text.index("\n[", start + 1) + 1 :])
    command = [str(Path(sys.executable).with_name("klimb")), "train", file.name]
    command += [part for override in overrides for part in ("--set", override)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def means(path: Path) -> dict[str, float]:
    """Return the mean of each evaluation in the file, by when it was made."""
    return {record["when"]: record["mean"] for record in map(json.loads, path.read_text().splitlines())}


def row_of(task: str, results: Sequence[dict]) -> list[str]:
    """Return the table's line of one environment."""
    seeds = list(range(len(results)))
    columns = [
        in_words(mean_interval([found[name] for found in results], seeds, unit="seed", bounds=(0.0, 1.0)))
        for name in ("base", "warm", "after")
    ]
    changes = [found["after"] - found["warm"] for found in results]
    return [task, *columns, in_words(paired_interval(changes, unit="seed", largest=1.0), sign="+")]


def in_words(found: Interval, sign: str = "") -> str:
    """Return the value with its interval."""
    if not found.is_known:
        return f"{found.value:{sign}.3f} (no interval: {found.reason})"
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


if __name__ == "__main__":
    main()
