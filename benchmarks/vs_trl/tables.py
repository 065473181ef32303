"""What came out: a line a step, the medians by phase with paired ratios, and the learning curves."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring import Ratios, paired_ratios
from benchmarks.vs_trl.turns import StepRecord

NUM_PARTS = 3
"""Of a learning curve, whose means are compared."""

PHASES = ("sample", "score", "update")
LEAST_SECONDS = 0.01
"""A phase that took less in every step has no ratio worth printing."""

Records = Mapping[str, Sequence[StepRecord]]


def step_line(number: int, name: str, record: StepRecord) -> str:
    """One step of one side."""
    phases = "  ".join(f"{phase} {seconds_of(record, phase):6.2f}" for phase in PHASES)
    rate = record.num_tokens_sampled / record.seconds
    return (
        f"step {number:2d}  {name:<6}{record.seconds:7.2f} s  {phases}  {rate:6.0f} tokens/s  "
        f"{record.peak_gib:5.2f} GiB  reward {record.reward_mean:5.3f}  other load {record.foreign_cores:4.2f} cores"
    )


def seconds_of(record: StepRecord, phase: str) -> float:
    """Seconds of a phase, of the `whole` step, or of all its threads (`CPU`)."""
    if phase == "whole":
        return record.seconds
    return record.cpu_seconds if phase == "CPU" else getattr(record, f"{phase}_seconds")


def summary(records: Records) -> dict[str, Ratios]:
    """TRL's seconds over klimb's, step by step, for each phase that both have; peak memory as `memory`."""
    ratios: dict[str, Ratios] = {}
    for phase in ("whole", "CPU", *PHASES):
        columns = {name: [seconds_of(record, phase) for record in steps] for name, steps in records.items()}
        if all(value >= LEAST_SECONDS for values in columns.values() for value in values):
            ratios[phase] = paired_ratios(columns["TRL"], columns["klimb"])
    peaks = {name: [max(record.peak_gib for record in steps)] for name, steps in records.items()}
    ratios["memory"] = paired_ratios(peaks["klimb"], peaks["TRL"])
    return ratios


def summary_lines(records: Records) -> list[str]:
    """Return the medians of both sides, and the medians of the paired ratios."""
    ratios = summary(records)
    lines = [f"{'':<10}{'klimb':>10}{'TRL':>10}   TRL / klimb, step by step: median (lowest–highest)"]
    for phase in ("whole", *PHASES, "CPU"):
        medians = {name: statistics.median(seconds_of(r, phase) for r in steps) for name, steps in records.items()}
        shown = f"{phase + ', s':<10}{medians['klimb']:10.2f}{medians['TRL']:10.2f}"
        lines.append(f"{shown}   {ratios[phase]}" if phase in ratios else shown)
    rates = {
        name: statistics.median(r.num_tokens_sampled / r.seconds for r in steps) for name, steps in records.items()
    }
    lines.append(f"{'tokens/s':<10}{rates['klimb']:10.0f}{rates['TRL']:10.0f}   drawn and trained on")
    peaks = {name: max(record.peak_gib for record in steps) for name, steps in records.items()}
    share = f"klimb's is {ratios['memory'].median:.2f} of TRL's"
    lines.append(f"{'peak, GiB':<10}{peaks['klimb']:10.2f}{peaks['TRL']:10.2f}   {share}")
    loads = [record.foreign_cores for steps in records.values() for record in steps]
    lines.append(f"other processes kept {min(loads):.2f} to {max(loads):.2f} cores busy")
    return lines


def check_equal_work(records: Records) -> None:
    """Return if both sides drew and trained on as many tokens in every step.

    Raises:
        ValueError: they did not; then the ratios mean nothing.
    """
    for klimb, trl in zip(records["klimb"], records["TRL"], strict=True):
        for name in ("num_tokens_sampled", "num_tokens_trained"):
            if getattr(klimb, name) != getattr(trl, name):
                raise ValueError(f"{name}: klimb {getattr(klimb, name)}, TRL {getattr(trl, name)}; the work differs")


def learning_lines(records: Records) -> list[str]:
    """Mean reward of each step on both sides, and of each third, against the samples drawn."""
    lines = [f"{'step':<6}{'klimb':>8}{'TRL':>8}   mean reward of the batch"]
    curves = {name: [record.reward_mean for record in steps] for name, steps in records.items()}
    for number, (klimb, trl) in enumerate(zip(curves["klimb"], curves["TRL"], strict=True), start=1):
        lines.append(f"{number:<6}{klimb:8.3f}{trl:8.3f}")
    size = max(1, len(curves["klimb"]) // NUM_PARTS)
    for start in range(0, size * NUM_PARTS, size):
        means = {name: statistics.fmean(curve[start : start + size] or [0.0]) for name, curve in curves.items()}
        label = f"{start + 1}-{start + size}"
        lines.append(f"{label:<6}{means['klimb']:8.3f}{means['TRL']:8.3f}   mean of these steps")
    totals = {name: sum(record.seconds for record in steps) for name, steps in records.items()}
    lines.append(f"seconds in all: klimb {totals['klimb']:.0f}, TRL {totals['TRL']:.0f}")
    return lines


def as_json(records: Records) -> dict[str, Any]:
    """Every step, and the ratios."""
    return {
        "steps": {name: [dataclasses.asdict(record) for record in steps] for name, steps in records.items()},
        "ratios": {name: dataclasses.asdict(ratios) for name, ratios in summary(records).items()},
    }
