"""Whether a run that something was done to is the run that it would have been: bit for bit, but for the clock."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from klimb.experience import read_samples
from klimb.training import load_checkpoint, newest_verified, read_metrics, without_wall_clock

OF_THE_CLOCK = ("elapsed_seconds", "total_seconds", "metrics_bytes")
"""Numbers of a checkpoint that tell the time; the size of metrics.jsonl does, since it holds seconds."""

COMPARED_AS_BYTES = ("config.json", "identity.json", "prompts.json")

OF_THE_RUN = {
    "checkpoints", "config.json", "config_history.jsonl", "curves.png", "curves.svg", "evaluations.jsonl", "guard.json",
    "identity.json", "lock", "loggers.json", "metrics.jsonl", "model", "prompts.json", "provenance.json", "report.html",
    "rollouts", "skipped", "summary.json", "tensorboard",
}  # fmt: skip
"""What the folder of a finished run may hold. Anything else was left behind."""

PUT_ASIDE = re.compile(r"\.damaged-\d+$")
"""How a resume names a damaged file that it keeps; it says so in a warning, and the run may hold it."""


def differences(straight: Path, torn: Path) -> list[str]:
    """List what is not the same in the run that nothing happened to and in the other one, in words."""
    found: list[str] = []
    for aspect in (_checkpoints, _metrics, _evaluations, _rollouts, _model, _files, _leftovers):
        try:
            found += aspect(straight, torn)
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(f"{aspect.__name__.strip('_')}: {type(error).__name__}: {error}")
    return found


def _checkpoints(straight: Path, torn: Path) -> Iterator[str]:
    one, other = (newest_verified(folder / "checkpoints") for folder in (straight, torn))
    if one is None or other is None or one.name != other.name:
        yield f"newest checkpoint: {one and one.name} and {other and other.name}"
        return
    contents = [load_checkpoint(path) for path in (one, other)]
    stems = [set(content.tensors) for content in contents]
    if stems[0] != stems[1]:
        yield f"checkpoint: files {sorted(stems[0] ^ stems[1])} are not in both"
        return
    for stem, tensors in contents[0].tensors.items():
        others = contents[1].tensors[stem]
        if tensors.keys() != others.keys() or not all(
            torch.equal(each, others[name]) for name, each in tensors.items()
        ):
            yield f"checkpoint: {stem} differs"
    yield from _compare("checkpoint numbers", *(_timeless(content.numbers) for content in contents))


def _timeless(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's numbers without what the clock decides."""
    kept = {name: value for name, value in numbers.items() if name not in OF_THE_CLOCK}
    return json.loads(
        json.dumps(kept), object_hook=lambda table: {k: v for k, v in table.items() if "seconds" not in k}
    )


def _metrics(straight: Path, torn: Path) -> Iterator[str]:
    one, other = ([without_wall_clock(row) for row in read_metrics(at / "metrics.jsonl")] for at in (straight, torn))
    steps = [[row["step"] for row in rows] for rows in (one, other)]
    if steps[0] != steps[1]:
        yield f"metrics: steps {steps[0]} and {steps[1]}"
        return
    yield from _compare("metrics", one, other)


def _evaluations(straight: Path, torn: Path) -> Iterator[str]:
    texts = [(at / "evaluations.jsonl").read_text(encoding="utf-8") for at in (straight, torn)]
    tables = [[_without_seconds(json.loads(line)) for line in text.splitlines()] for text in texts]
    yield from _compare("evaluations", *tables)


def _rollouts(straight: Path, torn: Path) -> Iterator[str]:
    one, other = (sorted((at / "rollouts").glob("*")) for at in (straight, torn))
    if [path.name for path in one] != [path.name for path in other]:
        yield f"rollouts: {[path.name for path in one]} and {[path.name for path in other]}"
        return
    for paths in zip(one, other, strict=True):
        samples = [[replace(sample, created_at=0.0) for sample in read_samples(path)] for path in paths]
        if samples[0] != samples[1]:
            yield f"rollouts: {paths[0].name} differs"


def _model(straight: Path, torn: Path) -> Iterator[str]:
    one, other = (
        {path.name: path.read_bytes() for path in sorted((at / "model").glob("*"))} for at in (straight, torn)
    )
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            yield f"model: {name} differs"


def _files(straight: Path, torn: Path) -> Iterator[str]:
    for name in COMPARED_AS_BYTES:
        one, other = ((at / name).read_bytes() if (at / name).exists() else None for at in (straight, torn))
        if one != other:
            yield f"{name} differs"
    for name in ("summary.json", "guard.json"):
        tables = [_without_seconds(_read(at / name)) for at in (straight, torn)]
        for table in filter(None, tables):
            table.pop("model_path", None)  # under the name that was free when the run began
        yield from _compare(name, *tables)


def _leftovers(straight: Path, torn: Path) -> Iterator[str]:
    for path in sorted(torn.rglob("*")):
        if ".tmp" in path.name:
            yield f"left behind: {path.relative_to(torn)}"
    for path in sorted(torn.iterdir()):
        if path.name not in OF_THE_RUN and ".tmp" not in path.name and not PUT_ASIDE.search(path.name):
            yield f"left behind: {path.name}"
    if (torn / "lock").exists() and (torn / "lock").read_text():
        yield "left behind: the lock is held"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _without_seconds(value: Any) -> Any:
    """Return the JSON value without the keys that tell the time."""
    if isinstance(value, list):
        return [_without_seconds(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_seconds(inner) for key, inner in value.items() if "seconds" not in key and key != "time"}
    return value


def _compare(what: str, one: Any, other: Any) -> Iterator[str]:
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _compare(f"{what}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _compare(f"{what}[{number}]", *pair)
    else:
        yield f"{what}: {str(one)[:80]} and {str(other)[:80]}"
