"""From a study to its runs: every cell of the matrix as a full configuration, checked before the first run begins."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klimb.declarations import MOST
from klimb.errors import ConfigError
from klimb.training import RECIPES
from klimb.workbench.config import RunConfig, build_config
from klimb.workbench.config.layers import Layer, lay_over
from klimb.workbench.study.config import StudyConfig, Tables

NO_SETTING: Mapping[str, Tables] = {"": {}}


MOST_SHOWN = 8
"""Wrong cells that an error names one by one."""


STUDY_OWNED = {
    "seed": "set study.seeds",
    "run.name": "each run is named after its place in the matrix",
    "run.folder": "set study.folder",
    "training.num_steps": "study.budget ends a run",
    "training.max_seconds": "study.budget ends a run",
    "training.max_generated_tokens": "study.budget ends a run",
    "training.max_training_seconds": "study.budget ends a run",
    "training.num_threads": "set study.threads_per_job",
    "evaluation.every_steps": "set study.evaluations",
    "evaluation.every_tokens": "set study.evaluations",
    "evaluation.every_seconds": "set study.evaluations",
    "evaluation.at_ends": "every run is evaluated before and after training",
}
"""Keys that must be equal in all runs, or differ by the matrix alone -> where they come from."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the matrix; `setting` is empty where the study has none."""

    task: str
    method: str
    setting: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """`arithmetic/grpo/adamw/seed-0`: its folder below `runs`."""
        return "/".join(part for part in (self.task, self.method, self.setting, f"seed-{self.seed}") if part)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All runs of a study in the order in which they are begun.

    Seeds are outermost, so that whatever has been run when a study is stopped compares all methods alike.

    Attributes:
        folder: of the study.
        text: of its TOML file.
    """

    study: StudyConfig
    folder: Path
    cells: tuple[Cell, ...]
    text: str

    def folder_of(self, cell: Cell) -> Path:
        """Return the run's folder."""
        return self.folder / "runs" / cell.name


def make_plan(study: StudyConfig, folder: Path, *, source: str, text: str = "") -> StudyPlan:
    """Return the runs of the study, each a checked configuration.

    Raises:
        ConfigError: a configuration is not right; every kind of mistake is named with a cell that has it.
    """
    problems = [*_owned_keys(study)]
    arms: list[tuple[str, str, str, RunConfig]] = []
    for task, setting, method in _arms(study):
        name = " · ".join(part for part in (task, method, setting) if part)
        try:
            arms.append((task, method, setting, _config(study, task, method, setting, source=name)))
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(_all_problems(problems, source=source))
    cells = tuple(
        _cell(study, folder, seed=seed, task=task, method=method, setting=setting, config=config)
        for seed in study.seeds
        for task, method, setting, config in arms
    )
    return StudyPlan(study=study, folder=folder, cells=cells, text=text)


def laid_over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of `upper` over those of `lower`, by the rule of `--set`."""
    return lay_over(lower, Layer(tables=upper))


def _arms(study: StudyConfig) -> Iterator[tuple[str, str, str]]:
    for task in study.tasks:
        for setting in study.settings or NO_SETTING:
            for method in study.methods:
                yield task, setting, method


def _config(study: StudyConfig, task: str, method: str, setting: str, *, source: str) -> RunConfig:
    """Return the configuration of a cell but for its seed and its place."""
    tables: dict[str, Any] = {}
    for layer in (
        _defaults(),
        study.base,
        study.tasks[task],
        _recipe_of(study, method),
        study.methods[method],
        (study.settings or NO_SETTING)[setting],
        _demands(study),
    ):
        try:
            tables = laid_over(tables, layer)
        except ConfigError as error:
            raise ConfigError(f"{source}:\n  {error}") from None
    _leave_rollouts_out(tables)
    config = build_config(tables, source=source)
    if study.study.budget.kind == "tokens" and config.sources.rollout == 0:
        raise ConfigError(
            f"{source}: it draws no answers (sources.rollout is 0), so a budget of tokens would never end it; "
            'take budget.kind = "seconds"'
        )
    return config


def _defaults() -> Tables:
    """Return what a run of a study is unless the file says otherwise: numbers are kept, gigabytes are not."""
    return {
        "checkpoints": {"every_steps": MOST, "keep": 1, "at_end": False},
        "evaluation": {"greedy": False},
        "run": {"save_model": False, "report": False, "loggers": []},
    }


def _recipe_of(study: StudyConfig, method: str) -> Tables:
    is_named = "recipe" in _table(study.methods[method], "objective")
    return {"objective": {"recipe": method}} if method in RECIPES and not is_named else {}


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the table of this name; what is none is for the configuration's own check to report."""
    found = tables.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _demands(study: StudyConfig) -> Tables:
    """Return what makes the runs comparable: the same budget, evaluated at the same parts of it."""
    section = study.study
    amount, part = section.budget.amount, section.budget.amount / section.evaluations
    if section.budget.kind == "tokens":
        limits = {"max_generated_tokens": round(amount)}
        every = {"every_tokens": max(1, round(part))}
    else:
        limits, every = {"max_training_seconds": float(amount)}, {"every_seconds": float(part)}
    return {
        "training": {"num_steps": MOST, "num_threads": section.threads_per_job, **limits},
        "evaluation": {"at_ends": True, **every},
    }


def _leave_rollouts_out(tables: dict[str, Any]) -> None:
    """Rollouts are kept if the file asks for them, or if the run itself reads them back."""
    reads_back = _table(tables, "sampling").get("lag") or _table(tables, "sources").get("replay")
    if not reads_back and isinstance(tables["run"], Mapping):
        tables["run"] = {"save_rollouts": False, **tables["run"]}


def _cell(
    study: StudyConfig, folder: Path, *, seed: int, task: str, method: str, setting: str, config: RunConfig
) -> Cell:
    place = folder / "runs" / task / method / setting
    run = config.run.model_copy(update={"name": f"seed-{seed}", "folder": str(place)})
    config = config.model_copy(update={"seed": seed, "run": run})
    return Cell(task=task, method=method, setting=setting, seed=seed, config=config)


def _owned_keys(study: StudyConfig) -> Iterator[str]:
    """Return a line for each key that a study's tables may not set."""
    places = {"base": study.base}
    for kind in ("tasks", "methods", "settings"):
        places |= {f"{kind}.{name}": tables for name, tables in getattr(study, kind).items()}
    for place, tables in places.items():
        for key, reason in STUDY_OWNED.items():
            section, _, leaf = key.rpartition(".")
            table = _table(tables, section) if section else tables
            if leaf in table:
                yield f"{place}.{key} = {table[leaf]!r}: the study sets this; {reason}"


def _all_problems(problems: list[str], *, source: str) -> str:
    """Each mistake once: most are made in a table that many cells share."""
    distinct: dict[str, str] = {}
    for problem in problems:
        distinct.setdefault(problem.partition("\n")[2] or problem, problem)
    shown = "\n".join(list(distinct.values())[:MOST_SHOWN])
    more = f"\n… and {len(distinct) - MOST_SHOWN} more" if len(distinct) > MOST_SHOWN else ""
    return f"{source}: the study can't be run:\n{shown}{more}"
