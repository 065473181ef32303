"""What a model would earn on logged prompts, without an answer drawn from it: read, score, estimate, print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.experience.store import open_store
from klimb.findings.off_policy_evaluation import (
    Estimate,
    clip_sweep,
    data_warnings,
    estimate_values,
    logged_data,
    logged_mean,
    reason_against,
)
from klimb.findings.statistics import Interval
from klimb.policies import Policy, load_policy
from klimb.tasks.reward_model import ModelReward
from klimb.training.run_folder import write_json
from klimb.ui.text import printable
from klimb.workbench.log_scoring import Refusals, read_rows, recorded_temperature, scored_rows
from klimb.workbench.model_path import model_path
from klimb.workbench.model_scores import NO_SCORES, score_with_model
from klimb.workbench.options import EstimateOptions


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What was found: the log's own mean reward, the estimates, a sweep of clips, and what to know of the data.

    `warnings` are what speaks against every estimate from these data; each estimate has its own besides.
    """

    logged: Estimate
    estimates: tuple[Estimate, ...]
    sweep: tuple[Estimate, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def check_usable(found: Estimated, data: Path, *, model: str) -> None:
    """Return if one of the estimates can be used.

    Raises:
        ConfigError: none can.
    """
    if not any(is_usable(each) for each in found.estimates):
        raise ConfigError(
            f"no estimator is usable: what drew {data} is too far from {model}. Draw fresh answers (klimb eval), or "
            "log responses of a model that is nearer to this one"
        )


def run_estimate(path: Path, request: EstimateOptions, *, console: Console) -> Estimated:
    """Read, scores, estimates, prints, and writes the JSON file if one was named.

    Raises:
        ConfigError: there is nothing to estimate from.
        ValueError: no sample has both a reward and a usable log_mu.
    """
    rows = read_rows(open_store(path), where=request.where, max_rows=request.max_samples, seed=request.seed)
    # What no estimate can use is not worth the model's time; it is passed on to be counted.
    usable = [not reason_against(sample) for sample in rows.samples]
    refusals = Refusals()
    if not any(usable):
        logged_data(rows.samples, [(0.0,) * sample.num_drawn for sample in rows.samples])
    readable = [sample for sample, use in zip(rows.samples, usable, strict=True) if use]
    temperature = request.temperature or recorded_temperature(readable)
    if temperature is None:
        raise ConfigError(
            f"the samples of {path} were drawn at several temperatures, greedily, or at one that was not recorded, so "
            "which policy of the model is to be estimated is not known; say it: --temperature 1, or take those of one "
            'temperature with --where "sampling.temperature = 1"'
        )
    policy = load_policy(model_path(request.model), dtype=request.dtype)
    policy.temperature = temperature
    with console.status(f"scoring {sum(usable)} samples"):
        scored = scored_rows(policy, readable, refusals)
    if not scored:
        raise ConfigError(f"{request.model} can score none of the samples. {' '.join(refusals.in_words())}")
    by_model, of_model = _score_by_model(policy, [sample for sample, _ in scored], request, console)
    useless = [sample for sample, use in zip(rows.samples, usable, strict=True) if not use]
    data = logged_data(
        [*(sample for sample, _ in scored), *useless],
        [*(log_pi for _, log_pi in scored), *((0.0,) * sample.num_drawn for sample in useless)],
        reward_range=request.reward_range,
        model_scores=None if by_model is None else [*by_model, *([NO_SCORES] * len(useless))],
    )
    notes: list[str] = list(of_model)
    if len(rows.samples) < rows.num_stored:
        notes.append(f"{len(rows.samples)} of {rows.num_stored} samples were read: whole groups at random.")
    if data.bounds is None:
        low, high = data.seen_range
        notes.append(
            f"the rewards' range is not known; seen are {low:g} to {high:g}. Intervals are not cut anywhere; "
            "--reward-range LOW HIGH gives the ends."
        )
    found = Estimated(
        logged=logged_mean(data),
        estimates=estimate_values(data, clip=request.clip, seed=request.seed),
        sweep=clip_sweep(data, seed=request.seed),
        notes=tuple(notes),
        warnings=(*(f"left out {line}" for line in refusals.in_words()), *data_warnings(data)),
    )
    _report(console, path, request, found)
    if request.json is not None:
        request.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"data": str(path), "model": request.model, **_as_json(found)}
        write_json(request.json, _without_nan(content))
    return found


def _score_by_model(
    policy: Policy, samples: Sequence[Sample], request: EstimateOptions, console: Console
) -> tuple[list[tuple[float, float]] | None, tuple[str, ...]]:
    """Return the reward model's scores of each sample and of fresh answers to its prompt, and notes; None without."""
    if request.reward_model is None:
        return None, ()
    reward = ModelReward.of_folder(str(request.reward_model), key="--reward-model")
    with console.status(f"drawing {request.fresh} fresh answers to each prompt"):
        return score_with_model(policy, samples, reward, num_fresh=request.fresh, seed=request.seed)


def is_usable(estimate: Estimate) -> bool:
    """Whether it is an estimate of π's value at all."""
    return not estimate.unusable


def advice(found: Estimated) -> list[str]:
    """Return what to do with these numbers, in sentences."""
    steps: list[str] = []
    if found.warnings:
        steps.append(
            "Begin with what is said of the data: klimb audit DATA shows where log μ is from and which responses could "
            "never be drawn; klimb experience score recomputes log μ with the model that drew them."
        )
    usable = [each for each in found.estimates if is_usable(each)]
    if not usable:
        return [*steps, "No number here is an estimate. Draw fresh answers (klimb eval), or log a nearer model."]
    if any(each.warnings for each in found.estimates) or not any(each.interval.is_known for each in usable):
        steps.append(
            "Do not decide by these numbers alone. Draw fresh answers (klimb eval), or log more prompts with a model "
            "that is nearer to this one."
        )
    comparison = _comparison(usable)
    return [
        *(steps or ["Nothing here speaks against these numbers. Quote snips or sn-doubly-robust."]),
        *comparison,
        "What the log never tried stays unseen.",
    ]


QUOTED = ("sn-doubly-robust", "snips")
"""Estimators whose difference to the log is told, the first one that can be used."""


def _comparison(usable: Sequence[Estimate]) -> list[str]:
    """Return whether the model is better than the log, by the difference on the same prompts."""
    named = {each.name: each for each in usable}
    quoted = next((named[name] for name in QUOTED if name in named), None)
    if quoted is None or quoted.gain is None:
        return []
    gain = quoted.gain
    if not gain.is_known:
        return [f"Whether the model is better than the log cannot be told: {gain.reason}."]
    verdict = "worse than the log" if gain.is_negative else "not distinguishable from the log"
    if gain.is_positive:
        verdict = "better than the log"
    ends = f"{_signed(gain.low)} to {_signed(gain.high)}"
    return [
        f"The model is {verdict} on these prompts: {quoted.name} minus the logged mean is {_signed(gain.value)}, "
        f"95 % interval {ends} (the same prompts on both sides)."
    ]


def _report(console: Console, path: Path, request: EstimateOptions, found: Estimated) -> None:
    logged = found.logged
    title = f"{request.model} on {logged.num_samples} logged responses to {logged.num_prompts} prompts"
    caption = "ESS: how many responses, and prompts, count; max w: share of the largest weight"
    table = Table(title=printable(title), title_justify="left", caption=caption, caption_justify="left")
    table.add_column("mean reward", no_wrap=True)
    for column in ("value", "95 % interval", "minus the log", "ESS", "prompts", "max w"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(logged.name, _number(logged.value), _interval(logged), style="dim", end_section=True)
    for each in found.estimates:
        counts = (_count(each.ess), _count(each.ess_prompts), f"{each.max_weight_share:.1%}")
        table.add_row(each.name, _value(each), _interval(each), _gain(each), *counts)
    console.print(table)
    sweep = ", ".join(f"{each.name.removeprefix('clipped-ips')} {_value(each)}" for each in found.sweep)
    _paragraphs(console, "", [f"clipped-ips by clip: {sweep}"])
    about = [f"{each.name}: {each.note}" for each in found.estimates if each.note]
    _paragraphs(console, "notes", [*found.notes, *about])
    _paragraphs(console, "no interval", _grouped([found.logged, *found.estimates], _why_no_interval))
    _paragraphs(console, "not usable", _grouped(found.estimates, _reasons), style="red")
    _paragraphs(console, "warnings", [*found.warnings, *_grouped(found.estimates, _warnings)], style="yellow")
    _paragraphs(console, "what to do", advice(found))


def _warnings(estimate: Estimate) -> tuple[str, ...]:
    return estimate.warnings if is_usable(estimate) else ()


def _reasons(estimate: Estimate) -> tuple[str, ...]:
    return () if is_usable(estimate) else (estimate.unusable,)


def _why_no_interval(estimate: Estimate) -> tuple[str, ...]:
    reason = estimate.interval.reason
    return (f"{reason}.",) if reason and is_usable(estimate) else ()


def _grouped(estimates: Sequence[Estimate], said_of: Callable[[Estimate], tuple[str, ...]]) -> list[str]:
    """Return what is said of the estimators, each sentence once with the names that it is for."""
    names: dict[str, list[str]] = {}
    for each in estimates:
        for sentence in said_of(each):
            names.setdefault(sentence, []).append(each.name)
    return [f"{'all' if len(who) == len(estimates) else ', '.join(who)}: {said}" for said, who in names.items()]


def _paragraphs(console: Console, title: str, lines: Sequence[str], *, style: str = "") -> None:
    if lines and title:
        console.print(Text(title, style="bold"))
    for line in lines:
        console.print(Text(f"  {printable(line, limit=600)}", style=style), soft_wrap=not console.is_terminal)


def _value(each: Estimate) -> str:
    return _number(each.value) if is_usable(each) else "not usable"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.3g}"


def _count(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _interval(each: Estimate) -> str:
    return f"{_number(each.low)} to {_number(each.high)}" if each.interval.is_known and is_usable(each) else "none"


def _gain(each: Estimate) -> str:
    gain = each.gain
    if gain is None or not gain.is_known or not is_usable(each):
        return "none"
    return f"{_signed(gain.low)} to {_signed(gain.high)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 1e6 else f"{value:+.3g}"


def _as_json(found: Estimated) -> dict[str, Any]:
    """Return what the file holds; an estimate that is none has no numbers of π's value."""
    content = asdict(found)
    content["logged"] = _estimate_as_json(found.logged)
    for name in ("estimates", "sweep"):
        content[name] = [_estimate_as_json(each) for each in getattr(found, name)]
    return content


def _estimate_as_json(each: Estimate) -> dict[str, Any]:
    shown = each
    if not is_usable(each):
        blank = Interval(math.nan, unit=each.interval.unit, num_units=each.interval.num_units, reason=each.unusable)
        shown = replace(each, interval=blank, gain=blank, standard_error=math.nan)
    return {"name": each.name, "value": shown.value, "low": shown.low, "high": shown.high, **asdict(shown)}


def _without_nan(content: Any) -> Any:
    """Return the same with None for what is not a number: JSON has none."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
