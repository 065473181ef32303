"""Which models saw something of a person: by the runs that have rollouts of them, and the stores that runs read."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from klimb.own_parts import is_own
from klimb.training.deployment import FILE as DEPLOYMENT_FILE
from klimb.training.deployment import read_deployment
from klimb.workbench.run_directory import KEY

MODEL_FOLDERS = ("model", "best", "adapter")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint, a model, or a policy of a deployment.

    Attributes:
        path: where it is.
        why: it saw something of the person, or may have.
    """

    path: Path
    why: str


def models_that_saw(folders: Sequence[Path], segments_in: Collection[Path], *, since: float) -> Iterator[Model]:
    """Yield the models under the folders that may have learnt from these stores.

    Args:
        folders: with the runs and deployments.
        segments_in: folders of segments that hold something of the person.
        since: seconds since the epoch of the earliest of it.
    """
    held = {folder.resolve() for folder in segments_in}
    runs = sorted({path.parent for folder in folders for path in folder.absolute().rglob("config.json")})
    saw = {run: why for run in runs if (why := _why_run(run, held))}
    # What began with a model that saw it has seen it too, and what began with that.
    while more := {run: why for run in runs if run not in saw and (why := _why_by_model(run, saw))}:
        saw.update(more)
    for run, why in sorted(saw.items()):
        yield from (Model(path=model, why=why) for model in _models_of(run))
    for path in sorted({path for folder in folders for path in folder.absolute().rglob(DEPLOYMENT_FILE)}):
        yield from _of_deployment(path.parent, since)


def _why_by_model(run: Path, saw: Collection[Path]) -> str:
    for model in _named_paths(run, ("model",)):
        if any(model.resolve().is_relative_to(other.resolve()) for other in saw):
            return f"its run began with {model.resolve()}"
    return ""


def _why_run(run: Path, held: Collection[Path]) -> str:
    if (run / "rollouts").resolve() in held:
        return "its run drew or trained on samples of the person"
    for store in _named_paths(run, ("log", "feedback")):
        if store.resolve() in held or (store / "rollouts").resolve() in held or store.parent.resolve() in held:
            return f"its run read {store.resolve()}"
    return ""


def _named_paths(run: Path, sections: Sequence[str]) -> Iterator[Path]:
    """Yield the `path` of sections of a run's configuration, from where it was begun and from here."""
    config = _read(run / "config.json")
    begun = _read(run / "provenance.json").get(KEY)
    bases = [Path.cwd(), *([run / begun] if isinstance(begun, str) else [])]
    for section in sections:
        table = config.get(section)
        named = cast(Mapping[str, Any], table).get("path") if isinstance(table, dict) else None
        if isinstance(named, str) and named and not is_own(named):
            yield from (base / named for base in bases)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast(Mapping[str, Any], content) if isinstance(content, dict) else {}


def _models_of(run: Path) -> Iterator[Path]:
    yield from sorted(path for path in (run / "checkpoints").glob("step-*") if path.is_dir())
    yield from (run / name for name in MODEL_FOLDERS if (run / name).is_dir())


def _of_deployment(folder: Path, since: float) -> Iterator[Model]:
    try:
        deployment = read_deployment(folder)
    except (OSError, ValueError):
        yield Model(path=folder / DEPLOYMENT_FILE, why="cannot be read: nobody knows which policies it had")
        return
    policies = [*deployment.earlier, deployment.current, *([deployment.candidate] if deployment.candidate else [])]
    for policy in policies[1:]:
        if policy.since >= since:
            yield Model(path=folder / policy.model, why=f"{policy.name} of the deployment began after the person wrote")
