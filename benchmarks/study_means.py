"""What happened inside the runs of a study: means over the finished runs of each method, as a Markdown table.

klimb compare headline
python benchmarks/study_means.py studies/headline adamw
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from klimb.training import read_metrics

Row = dict[str, float | None]


def mean_of(rows: Sequence[Row], name: str) -> float:
    """Mean over the steps that log it; nan where none does."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    return statistics.fmean(values) if values else float("nan")


def trained_share(rows: Sequence[Row], *, num_epochs: int) -> float:
    """Share of the drawn tokens that a batch kept."""
    trained = sum(row.get("num_tokens_trained") or 0.0 for row in rows)
    return trained / num_epochs / (rows[-1]["num_tokens_generated"] or 1.0)


def columns(num_epochs: int) -> dict[str, tuple[str, Callable[[Sequence[Row]], float]]]:
    """Heading -> format and what is read off a run."""
    return {
        "batches": (".1f", len),
        "tokens drawn": (",.0f", lambda rows: rows[-1]["num_tokens_generated"] or 0.0),
        "trained on": (".0%", lambda rows: trained_share(rows, num_epochs=num_epochs)),
        "dropped first": (".0%", lambda rows: rows[0].get("groups_dropped_fraction") or 0.0),
        "clipped low": (".1%", lambda rows: mean_of(rows, "clip_low_fraction")),
        "clipped high": (".1%", lambda rows: mean_of(rows, "clip_high_fraction")),
        "`kl_pi_ref`": (".3f", lambda rows: mean_of(rows, "kl_pi_ref")),
        "entropy at the end": (".2f", lambda rows: rows[-1].get("entropy") or 0.0),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("setting")
    parser.add_argument("--num-epochs", type=int, default=2, help="training.num_epochs of the study")
    arguments = parser.parse_args()
    runs: dict[str, list[list[Row]]] = {}
    for path in sorted(arguments.study.glob(f"runs/*/*/{arguments.setting}/seed-*/summary.json")):
        runs.setdefault(path.parts[-4], []).append(read_metrics(path.with_name("metrics.jsonl")))
    shown = columns(arguments.num_epochs)
    print("| method | " + " | ".join(shown) + " |\n| --- |" + " --: |" * len(shown))
    for method in sorted(runs):
        means = [format(statistics.fmean(map(read, runs[method])), form) for form, read in shown.values()]
        print(f"| {method} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
