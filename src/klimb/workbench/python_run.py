"""`klimb.train`: a run from Python that leaves what `klimb train FILE` leaves.

What a file names, Python may hand over as it is: a part that can be imported again stands in the run's configuration as
`python:module.name`, any other as `python:__object__.NAME`, with the hash of its source in the run's identity.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from klimb.errors import ConfigError
from klimb.experience import Sample
from klimb.findings.evaluations import EvaluationRecord
from klimb.own_parts import LOCATION, OBJECT, PREFIX, OwnObject, have_objects, source_hash
from klimb.policies import Policy
from klimb.samplers import Sampler
from klimb.tasks import ProblemSet, Task
from klimb.tasks.catalogue import task_table
from klimb.tasks.environments.settings import EnvironmentSettings
from klimb.training import GroupStore, read_metrics
from klimb.training.callbacks import check_callback
from klimb.training.identity import describe_part
from klimb.training.run_folder import RunFolder, check_is_free, free_folder, is_run, move_aside
from klimb.ui.terminal.run import print_run
from klimb.ui.text import relative_to_working_directory
from klimb.workbench.config import RunConfig, build_config, is_resolved, read_tables, table_of
from klimb.workbench.config.layers import lay_over, layer_of
from klimb.workbench.config.paths import check_paths
from klimb.workbench.config.reading import resolved_tables
from klimb.workbench.global_values import global_values_of
from klimb.workbench.provenance import mend_before_resume, new_run_folder
from klimb.workbench.run import run_training
from klimb.workbench.run_directory import in_directory_of
from klimb.workbench.session import make_session

Settings = Mapping[str, Any] | RunConfig | str | Path


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """What a run leaves, for the program that made it.

    Attributes:
        folder: of the run: what `klimb board`, `report`, `compare` and `eval` take.
        policy: as it was trained.
        num_steps: loop steps done, those before a resume included.
        metrics: of the last step, None where a number is not finite; empty where there was no step.
        before: the evaluation of the untrained policy; None where there was none.
        after: that of the trained one.
    """

    folder: Path
    policy: Policy
    num_steps: int
    metrics: Mapping[str, float | None]
    before: EvaluationRecord | None
    after: EvaluationRecord | None


def train(
    settings: Settings | None = None,
    /,
    *,
    task: Task | Callable[..., Task] | Mapping[str, Any] | str | None = None,
    reward: Callable[..., object] | str | None = None,
    model: Policy | str | Path | None = None,
    sampler: Sampler | Callable[..., Sampler] | str | None = None,
    optimizer: Callable[..., Any] | str | None = None,
    divergence: Any = None,
    reference: Callable[..., bool] | str | None = None,
    source: Sequence[Sample] | GroupStore | Callable[..., Any] | str | Path | None = None,
    environment: Callable[[], object] | EnvironmentSettings | Mapping[str, Any] | str | None = None,
    callbacks: Sequence[object] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    restart: bool = False,
    show: bool = True,
) -> TrainedRun:
    """Train a model, and leave the folder that `klimb train FILE` leaves.

    Every argument but the last four stands for a key of a run file, which may name it instead. In nested tables too, an
    object may stand where a file has `python:module.name`.

    Args:
        settings: tables with the keys of a run file, the path of one, or a `RunConfig`; None takes the defaults, or
            with `resume` what the folder says.
        task: `task`: a `klimb.tasks.ProblemSet`, a function of (seed) that returns one, a table, or `KIND:SUBJECT`.
        reward: `task.reward`: a function of (prompt, response, answer, metadata), or a name.
        model: `model.path`: a path or a name, or a policy, which is trained in place.
        sampler: `sampling.sampler`: a `klimb.samplers.Sampler`, or a function of (policy, max_batch) that returns one.
        optimizer: `optimizer.kind`: a function of (groups, settings) that returns a `torch.optim.Optimizer`, or a name.
        divergence: `objective.divergence`: a `klimb.divergences.Divergence`, or a name.
        reference: `reference.kind`: a function of a `klimb.training.ReferenceStanding`, or a name.
        source: `log.path`: samples, a store, a function of (seed) that returns them, or a path. Without a table
            `sources` the run trains on them alone.
        environment: `environment.factory`: a class, or a function without parameters, that makes an environment; a
            name; or the whole table `[environment]`, in which `tools` may hold functions and classes, or such settings.
        callbacks: `run.callbacks`: objects with methods of `klimb.training.Callback`, or their classes.
        folder: where the results go; without it, a new folder under `run.folder`.
        resume: go on from the newest checkpoint in `folder`; the same objects must be handed over again.
        restart: move what is in `folder` aside and begin anew.
        show: print what `klimb train` prints.

    Raises:
        ConfigError: something that was given cannot be used; with its key.
        Interrupted: a signal ended the run; its state is saved.
    """
    objects = Objects()
    place = None if folder is None else Path(folder)
    place = place.absolute() if place is not None and resume else place
    values: dict[str, Any] = {
        "task": _task_value(task),
        "task.reward": reward,
        "model.path": model,
        "sampling.sampler": sampler,
        "optimizer.kind": optimizer,
        "objective.divergence": divergence,
        "reference": reference,
        "log.path": source,
        **_environment_value(environment),
        "run.callbacks": list(callbacks) or None,
    }
    given = {key: objects.written(value, key) for key, value in values.items() if value is not None}
    tables, is_from_run = _tables_of(settings, place if resume else None)
    tables = _without_other_kinds(objects.written(tables, ""), given)
    if isinstance(model, Policy):
        given |= _settings_of_policy(model, tables.get("model", {}))
    if source is not None and "sources" not in tables:
        given["sources.log"] = 1.0
    with have_objects(objects.given):
        laid = lay_over(tables, layer_of(given), is_resolved=is_from_run)
        config = build_config(laid, source="klimb.train")
        # What a run names by a relative path is looked for where it was begun.
        with nullcontext() if place is None or not resume else in_directory_of(place, laid):
            check_paths(config)
            return _train(config, place, resume=resume, restart=restart, show=show)


def _train(config: RunConfig, folder: Path | None, *, resume: bool, restart: bool, show: bool) -> TrainedRun:
    place = _place_of(config, folder, resume=resume, restart=restart)
    console = Console(quiet=not show)
    if resume:
        mend_before_resume(RunFolder(place), config)
    session = make_session(config)

    def open_folder() -> RunFolder:
        if resume:
            return RunFolder(place)
        if restart and (aside := move_aside(place)) is not None:
            console.print(f"the earlier run in {place} is now in {aside}", markup=False, highlight=False)
        named = Path(config.run.folder) / config.run.name if folder is None else place
        return new_run_folder(named, config, is_numbered=folder is None)

    title = f"{relative_to_working_directory(place)} · {config.objective.recipe}"
    finished = run_training(session, open_folder, console=console, title=title, resume=resume)
    print_run(console, finished)
    path = finished.folder.metrics
    last: Mapping[str, Any] = read_metrics(path)[-1] if path.is_file() and finished.num_steps else {}
    return TrainedRun(
        folder=finished.folder.path,
        policy=session.policy,
        num_steps=finished.num_steps,
        metrics=last,
        before=finished.before,
        after=finished.after,
    )


def _place_of(config: RunConfig, folder: Path | None, *, resume: bool, restart: bool) -> Path:
    if (resume or restart) and folder is None:
        raise ConfigError(f"{'resume' if resume else 'restart'} = True needs the folder of the run: folder=...")
    if resume and restart:
        raise ConfigError("resume goes on with a run and restart begins it anew: say one")
    if folder is None:
        return free_folder(Path(config.run.folder) / config.run.name)
    if resume and not is_run(folder):
        raise ConfigError(f"{folder} holds no run: there is no {RunFolder(folder).provenance}; leave resume out")
    if not (resume or restart):
        check_is_free(folder)
    return folder


def _tables_of(settings: Settings | None, resumed: Path | None) -> tuple[dict[str, Any], bool]:
    """Return the tables that settings stand for, and whether they hold every default."""
    if settings is None:
        if resumed is None:
            return {}, False
        if not is_run(resumed):
            raise ConfigError(f"{resumed} holds no run: there is no {RunFolder(resumed).provenance}; leave resume out")
        return read_tables(RunFolder(resumed).config), True
    if isinstance(settings, RunConfig):
        return resolved_tables(settings), True
    if isinstance(settings, Mapping):
        return dict(settings), False
    path = Path(settings)
    return read_tables(path), is_resolved(path)


def _without_other_kinds(tables: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the tables without those that were written for another task or reference than the one that is given."""
    kept = dict(tables)
    for section in ("task", "reference"):
        said = given.get(section)
        if said is not None:
            given[section] = {"kind": said} if isinstance(said, str) else said
            below = kept.get(section)
            if not isinstance(below, Mapping) or below.get("kind", given[section].get("kind")) != given[section].get(
                "kind"
            ):
                kept.pop(section, None)
    return kept


def _task_value(task: Any) -> Any:
    """Return the table of `KIND:SUBJECT`; anything else as it is."""
    if not isinstance(task, str):
        return task
    try:
        return {**task_table(task)}
    except ValueError as error:
        raise ConfigError(f"task = {task!r}: {error}") from None


def _environment_value(environment: Any) -> dict[str, Any]:
    """Return the key that the environment stands for, with what a run file has there."""
    if isinstance(environment, EnvironmentSettings):
        return {"environment": table_of(environment)}
    return {"environment" if isinstance(environment, Mapping) else "environment.factory": environment}


DTYPES = {"torch.float32": "float32", "torch.bfloat16": "bfloat16"}


def _settings_of_policy(policy: Policy, said: Any) -> dict[str, Any]:
    """Return the keys of `[model]` that say what the policy is.

    Raises:
        ConfigError: the tables say how to load a model, and this one is loaded already.
    """
    other = sorted({*said} - {"path", "temperature", "dtype", "device"}) if isinstance(said, Mapping) else []
    if other:
        raise ConfigError(
            f"model.{other[0]} says how to load a model, and model=... is a policy that is loaded already: give its "
            "path instead, or load it so"
        )
    return {"model.dtype": DTYPES.get(str(policy.compute_dtype), "auto"), "model.device": str(policy.device)}


class Objects:
    """The objects that were handed over, by where they stand in the configuration.

    Attributes:
        given: location -> object, of those that cannot be imported.
    """

    def __init__(self) -> None:
        self.given: dict[str, OwnObject] = {}

    def written(self, value: Any, key: str) -> Any:
        """Return the value as a run file writes it: a path as text, an object by its location, the rest as it is."""
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, Mapping):
            return {name: self.written(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items()}
        if isinstance(value, list | tuple) and not any(isinstance(inner, Sample) for inner in value):
            return [self.written(inner, key) for inner in value]
        if key == "run.callbacks" and not isinstance(value, type):
            check_callback(value, name="callbacks: ")
        return _importable_location(value) or self._keep(value, key)

    def _keep(self, part: Any, key: str) -> str:
        """Return the location of an object that cannot be imported, by its own name."""
        called = _name_of_content(part) or getattr(part, "__name__", None) or type(part).__name__
        name = re.sub(r"\W", "_", called.rpartition(".")[2]).strip("_") or "unnamed"
        for number in range(1, len(self.given) + 2):
            location = f"{OBJECT}{name if number == 1 else f'{name}_{number}'}"
            known = self.given.setdefault(location, _own_object(part, key))
            if known.part is part:
                break
        return location  # pyright: ignore[reportPossiblyUnboundVariable]: the range is never empty


def _importable_location(part: Any) -> str:
    """Return `python:module.name` of a function or class at the top of a module that can be imported; else nothing."""
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not (inspect.isroutine(part) or isinstance(part, type)) or module in (None, "__main__"):
        return ""
    location = f"{PREFIX}{module}.{name}"
    if not LOCATION.fullmatch(location) or getattr(sys.modules.get(module), str(name), None) is not part:
        return ""
    try:
        source_hash(location)
    except (ConfigError, ValueError, OSError):  # a module that was made, and not found
        return ""
    return location


def _name_of_content(part: Any) -> str:
    """Return what a part is called that is known by its content; empty for others."""
    if isinstance(part, Policy):
        return "policy"
    return "samples" if isinstance(part, GroupStore | list | tuple) else ""


def _own_object(part: Any, key: str) -> OwnObject:
    is_read = not _name_of_content(part) and key != "run.callbacks"
    called = part.score if isinstance(part, ProblemSet) else part
    return OwnObject(part, _hash_of(part, key), global_values_of(called) if is_read else {})


def _hash_of(part: Any, key: str) -> str:
    """Return 16 hexadecimal digits of an object's source, and of the plain values that its functions enclose."""
    if content := _name_of_content(part):
        told: Any = content  # which is in the identity itself
    elif isinstance(part, ProblemSet):
        told = describe_part(part.score)  # so are its problems
    else:
        told = [describe_part(part), _code_of(part), {} if key == "run.callbacks" else _enclosed(part)]
    return sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _code_of(part: Any) -> str:
    """Return the code of a function whose source is in no file, as in an interactive session."""
    code = getattr(part, "__code__", None)
    if code is None:
        return ""
    try:
        inspect.getsource(part)
    except (OSError, TypeError):
        return f"{code.co_code.hex()} {code.co_names} {[each for each in code.co_consts if not inspect.iscode(each)]}"
    return ""


def _enclosed(part: Any) -> dict[str, Any]:
    """Return the plain values and functions that a closure took from around it."""
    if not inspect.isfunction(part):
        return {}
    around = inspect.getclosurevars(part).nonlocals
    return {
        name: describe_part(value)
        for name, value in around.items()
        if isinstance(value, bool | int | float | str) or inspect.isroutine(value)
    }
