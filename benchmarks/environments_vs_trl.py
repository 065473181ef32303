"""Steps of klimb and of TRL's GRPOTrainer with one environment side by side: seconds by phase, and their ratio.

    python -m benchmarks.environments_vs_trl                   # SmolLM2-135M, 2 locks x 4 conversations, 5 turns
    python -m benchmarks.environments_vs_trl --model FOLDER    # a model that was taught before, with --keep FOLDER
    python -m benchmarks.environments_vs_trl --model FOLDER --acted   # any model; the same turns on both sides

The environment is `benchmarks.environments.lock`, the same class on both sides. The model is first shown a few
conversations, so that it calls the tools most of the time; then both sides draw from it at temperature 1, in float32,
with the same prompts, samples, turns and tokens a turn. They take turns, a step each. What they draw is not the same to
the token, so the seconds of a token are given beside those of a step.

With `--acted` the turns are written down, the same to the token on both sides; the model trains on them and draws none.
What is compared then is everything but drawing.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.environments.steps import Play
from benchmarks.environments.teaching import teach
from benchmarks.measuring import machine, paired_ratios
from benchmarks.vs_trl.__main__ import measured
from benchmarks.vs_trl.tables import check_equal_work, summary_lines
from benchmarks.vs_trl.turns import Side, StepRecord


def main() -> None:
    """Teach the model, let both sides take turns, print each step and the ratios."""
    arguments = parsed()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or arguments.keep or folder
        if not arguments.model:
            teach("smollm2-135m", Path(model))
        sizes = {"num_prompts": arguments.prompts, "num_samples": arguments.samples}
        acted = {"is_acted": True, "turn_tokens": 200, "most_tokens": 4000} if arguments.acted else {}
        play = Play(model=str(model), **sizes, **acted)
        print(f"{machine()}\n{play}", flush=True)
        with start("klimb", play) as klimb, start("TRL", play) as trl:
            records = measured({"klimb": klimb, "TRL": trl}, num_steps=arguments.steps, num_warmup=1)
    if arguments.acted:
        check_equal_work(records)
    print("\n".join([*summary_lines(records), per_token_line(records)]))


def start(name: str, play: Play) -> Side:
    """Start a side in a process of its own."""
    return Side(name, "benchmarks.environments.steps", name, play.to_json())


def per_token_line(records: Mapping[str, Sequence[StepRecord]]) -> str:
    """Return the ratio of seconds for each drawn token, and how many each side drew."""
    costs = {name: [step.seconds / step.num_tokens_sampled for step in steps] for name, steps in records.items()}
    drawn = {name: statistics.mean(step.num_tokens_sampled for step in steps) for name, steps in records.items()}
    ratios = paired_ratios(costs["TRL"], costs["klimb"])
    return f"seconds a drawn token, TRL / klimb: {ratios}; a step drew {drawn['klimb']:.0f} and {drawn['TRL']:.0f}"


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model that was taught already")
    parser.add_argument("--keep", type=Path, help="folder in which the taught model is kept")
    parser.add_argument("--acted", action="store_true", help="the same written turns on both sides")
    parser.add_argument("--steps", type=int, default=4, help="measured steps a side, after one to warm up")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
