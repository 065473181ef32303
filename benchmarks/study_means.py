"""What happened inside the runs of a study: means over the finished runs of each method, as a Markdown table.

klimb compare headline
python benchmarks/study_means.py studies/headline adamw
klimb compare ablations
python benchmarks/study_means.py studies/ablations           # a study without settings
"""

import argparse
import json
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


COLUMNS: dict[str, tuple[str, Callable[[Sequence[Row], int], float]]] = {
    "batches": (".1f", lambda rows, _: len(rows)),
    "steps": (".0f", lambda rows, _: rows[-1]["optimizer_steps"] or 0.0),
    "tokens drawn": (",.0f", lambda rows, _: rows[-1]["num_tokens_generated"] or 0.0),
    "trained on": (".0%", lambda rows, num_epochs: trained_share(rows, num_epochs=num_epochs)),
    "dropped first": (".0%", lambda rows, _: rows[0].get("groups_dropped_fraction") or 0.0),
    "clipped low": (".1%", lambda rows, _: mean_of(rows, "clip_low_fraction")),
    "clipped high": (".1%", lambda rows, _: mean_of(rows, "clip_high_fraction")),
    "`ess_token`": (".2f", lambda rows, _: mean_of(rows, "ess_token")),
    "`w_max`": (".0f", lambda rows, _: max(row.get("w_max") or 0.0 for row in rows)),
    "`kl_pi_ref`": (".3f", lambda rows, _: mean_of(rows, "kl_pi_ref")),
    "entropy at the end": (".2f", lambda rows, _: rows[-1].get("entropy") or 0.0),
}
"""Heading -> format and what is read off a run and its number of epochs."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("setting", nargs="?", default="", help="of a study that has settings")
    arguments = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    place = f"{arguments.setting}/" if arguments.setting else ""
    for path in sorted(arguments.study.glob(f"runs/*/*/{place}seed-*/summary.json")):
        method = path.parts[-4 if arguments.setting else -3]
        num_epochs = json.loads(path.with_name("config.json").read_text())["training"]["num_epochs"]
        rows = read_metrics(path.with_name("metrics.jsonl"))
        found.setdefault(method, []).append([read(rows, num_epochs) for _, read in COLUMNS.values()])
    print("| method | " + " | ".join(COLUMNS) + " |\n| --- |" + " --: |" * len(COLUMNS))
    for method in sorted(found):
        means = [statistics.fmean(values) for values in zip(*found[method], strict=True)]
        shown = [
            "–" if mean != mean else format(mean, form) for mean, (form, _) in zip(means, COLUMNS.values(), strict=True)
        ]
        print(f"| {method} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
