"""The TOML file of a study: which methods, on which tasks, under which settings, how often, and for how much."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from klimb.declarations import LongText, PathText, Seed
from klimb.errors import ConfigError
from klimb.workbench.config import read_tables
from klimb.workbench.config.bounds import SECTION, RunName, in_plain_words
from klimb.workbench.config.errors import config_error

READY_FOLDER = Path(__file__).parent.parent / "studies"
"""The studies that come with klimb, found by name."""


ArmName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,59}$"),
    in_plain_words("1 to 60 letters, digits, dots, pluses, dashes and underscores, no dot first"),
]
"""A task, method or setting; it names a folder."""


Tables = dict[str, Any]


class BudgetSection(BaseModel):
    """What every run has the same amount of."""

    model_config = SECTION

    kind: Literal["tokens", "seconds"]
    """Answer tokens drawn in training, those of dropped groups included; or seconds of training steps."""
    amount: Annotated[float, Field(gt=0, le=1e12)]
    """A run ends after the step in which it has spent this much."""


class StudySection(BaseModel):
    """How the matrix is run."""

    model_config = SECTION

    name: RunName
    """Name of the study and of its folder."""
    folder: PathText = "studies"
    """Folder in which the study's own folder is made."""
    description: LongText = ""
    """What is asked; shown in the report."""
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=1_000)]
        | Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=1_000)],
        in_plain_words("a whole number from 1 to 1000, or a list of seeds such as [0, 1, 2]"),
    ] = 5
    """How many seeds, or which."""
    first_seed: Seed = 0
    """The first of them, where only their number is given."""
    baseline: ArmName
    """The method that the others are compared with."""
    budget: BudgetSection
    """What every run may spend."""
    evaluations: Annotated[int, Field(ge=1, le=1_000)] = 4
    """Evaluations on held-out problems, at equal parts of the budget; one more is made before training."""
    jobs: Literal["auto"] | Annotated[int, Field(ge=1, le=4_096)] = "auto"
    """Runs at the same time; `auto` takes a GPU or `threads_per_job` processor cores for each."""
    threads_per_job: Annotated[int, Field(ge=1, le=4_096)] = 1
    """Processor threads of one run."""


class StudyConfig(BaseModel):
    """One study: every task with every method under every setting, with every seed."""

    model_config = SECTION

    study: StudySection
    """How the matrix is run."""
    base: Tables = {}
    """Tables of a run file that all runs share."""
    tasks: Annotated[dict[ArmName, Tables], Field(min_length=1, max_length=100)]
    """Name -> tables laid over `base`."""
    methods: Annotated[dict[ArmName, Tables], Field(min_length=1, max_length=200)]
    """Name -> tables laid over those of the task; the recipe is the name, unless `objective.recipe` says another."""
    settings: Annotated[dict[ArmName, Tables], Field(max_length=100)] = {}
    """Name -> tables laid over those of the method, such as an optimizer."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed, in the order in which they are run."""
        seeds, first = self.study.seeds, self.study.first_seed
        return tuple(range(first, first + seeds)) if isinstance(seeds, int) else seeds

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.study.baseline not in self.methods:
            raise ValueError(
                f"study.baseline = {self.study.baseline!r} is none of the methods {', '.join(self.methods)}; "
                "name one of them"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"study.seeds = {list(self.seeds)} has a seed twice; each gives one run")
        for kind in ("tasks", "methods", "settings"):
            _check_folders_differ(kind, getattr(self, kind))
        return self


def read_study(source: str) -> tuple[StudyConfig, str]:
    """Return the study of a TOML file, or the ready one of that name, and its text.

    Raises:
        ConfigError: there is no such file or study, or settings are wrong; all of them are named.
    """
    path = find_study(source)
    tables = read_tables(path)
    try:
        config = StudyConfig.model_validate(tables)
    except ValidationError as error:
        raise config_error(error, source=str(path), model=StudyConfig) from None
    return config, path.read_text(encoding="utf-8-sig")


def find_study(source: str) -> Path:
    """Return the file that is meant.

    Raises:
        ConfigError: it is neither a file nor the name of a ready study.
    """
    path, ready = Path(source), ready_studies()
    if path.is_file():
        return path
    if source in ready:
        return ready[source]
    raise ConfigError(
        f"{source!r} is no file and no ready study; give a TOML file, or one of the ready ones: {', '.join(ready)}"
    )


def ready_studies() -> dict[str, Path]:
    """Name -> file of the studies that come with klimb."""
    return {path.stem: path for path in sorted(READY_FOLDER.glob("*.toml"))}


def describe_ready_studies() -> dict[str, str]:
    """Name -> first line of the description of each ready study."""
    read = {name: tomllib.loads(path.read_text(encoding="utf-8")) for name, path in ready_studies().items()}
    return {name: str(tables["study"].get("description", "")).split("\n")[0] for name, tables in read.items()}


def _check_folders_differ(kind: str, names: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(
                f"{kind}.{other} and {kind}.{name} differ in upper and lower case alone: one folder on some disks"
            )
