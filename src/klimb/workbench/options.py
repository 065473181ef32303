"""The options of commands that have many, each declared once: its name, default, check and the words of `--help`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from klimb.errors import ConfigError
from klimb.experience.importing.kinds import NAMES

SETTINGS = Parameter(name="--set", consume_multiple=True, negative="", show_default=False)
Overrides = Annotated[tuple[str, ...], SETTINGS]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
Pairs = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="", show_default=False)]
TextOrNone = Annotated[str, Parameter(show_default=False)]
PathOrNone = Annotated[Path | None, Parameter(show_default=False)]
ScoreKind = Literal["log-mu", "log-ref"]
ROW_KINDS = f"{', '.join(NAMES)}, or `python:module.name` of your own; guessed without it."


def check_is_there(path: Path, what: str) -> None:
    """Return if there is a file or folder at the path.

    Raises:
        ConfigError: there is none; `what` says what was expected.
    """
    if not path.exists():
        raise ConfigError(f"there is nothing at {path}: give {what}")


def check_temperature(temperature: float | None) -> None:
    """Return if a policy can have this temperature, or none is named.

    Raises:
        ConfigError: it cannot.
    """
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"--temperature must be finite and > 0, got {temperature}: the policy's, as log π is taken")


def check_model(name: str) -> None:
    """Return if there is a model of this name, or none is named; asked before what loads it is imported.

    Raises:
        ConfigError: it is a run that has no model yet.
        ValueError: there is no model of this name.
    """
    from klimb.workbench.model_path import model_path

    model_path(name)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What `klimb audit` is asked.

    Attributes:
        model: The model to train: scores the logged answers. What `eval` takes.
        evaluation: `arithmetic`, `reasoning-gym:NAME`, `file:PATH` or `python:module.function`: prompts that
            must not be in the data.
        where: A DuckDB condition on samples, such as "reward is not null".
        html: Where the page goes; without it, DATA-audit.html here.
        config: Where the run file goes; without it, DATA-audit.toml here.
        json: Also write the whole result to this file.
        max_samples: Score at most this many samples, of whole groups at random.
        max_rows: Read at most this many samples, of whole groups at random.
        fresh: Draw this many answers from the model to see whether the data holds what it would do.
        hoped_gain: The improvement of the mean reward that should be visible.
        is_logging_model: The model is the one that drew the data.
        trust_ratings: The ratings are those of these answers, though nothing that can be seen of them goes with them.
        temperature: Softmax temperature of the policy to train; without it, the one recorded with the samples.
        seed: Of every random choice.
    """

    model: TextOrNone = ""
    evaluation: Annotated[str, Parameter(name="--eval", show_default=False)] = ""
    where: TextOrNone = ""
    html: PathOrNone = None
    config: PathOrNone = None
    json: PathOrNone = None
    max_samples: int = 2000
    max_rows: int = 100_000
    fresh: int = 0
    hoped_gain: float = 0.1
    is_logging_model: Switch = False
    trust_ratings: Switch = False
    temperature: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.max_samples < 1 or self.max_rows < 1 or self.fresh < 0:
            raise ConfigError(
                f"--max-samples and --max-rows must be >= 1 and --fresh >= 0, got {self.max_samples}, {self.max_rows} "
                f"and {self.fresh}"
            )
        if not (math.isfinite(self.hoped_gain) and self.hoped_gain > 0):
            raise ConfigError(f"--hoped-gain must be finite and > 0, in units of the reward, got {self.hoped_gain}")
        if not self.model and (self.fresh or self.is_logging_model):
            raise ConfigError("--fresh and --is-logging-model need --model: the model that is asked")
        if self.html is not None and self.html == self.config:
            raise ConfigError(f"--html and --config are both {self.html}; give each a file of its own")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """What `klimb estimate` is asked.

    Attributes:
        model: A Hugging Face folder, a .gguf file, `smollm2-135m`, or a run's folder.
        where: Only these samples, e.g. `source = 'log' and policy_version < 10`.
        max_samples: Read at most this many samples: whole groups at random.
        clip: Weights above it count as it, in clipped-ips.
        seed: Of the choice of groups and of the bootstrap.
        json: Also write the result to this file.
        dtype: Of the matrix products: float32, bfloat16 or auto.
        temperature: Softmax temperature of the model's policy; without it, the one recorded with the samples.
        reward_range: The least and the largest reward that there can be, e.g. `--reward-range -1 1`; rewards of 0 and 1
            need none.
        reward_model: Folder of a reward model: it scores the logged answers, and fresh ones that are drawn from the
            model, for the estimates `model-direct` and `model-doubly-robust`.
        fresh: Answers that are drawn to each prompt, with --reward-model.
    """

    model: str
    where: str = ""
    max_samples: int = 10_000
    clip: float = 10.0
    seed: int = 0
    json: PathOrNone = None
    dtype: str = "float32"
    temperature: float | None = None
    reward_range: tuple[float, float] | None = None
    reward_model: PathOrNone = None
    fresh: int = 4

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.fresh < 1:
            raise ConfigError(f"--fresh must be >= 1, got {self.fresh}: answers to each prompt, for --reward-model")
        if self.max_samples < 1 or not (math.isfinite(self.clip) and self.clip > 0):
            raise ConfigError(
                f"--max-samples must be >= 1 and --clip a number > 0, got {self.max_samples} and {self.clip}"
            )
        if self.reward_range is not None and not self.reward_range[0] < self.reward_range[1]:
            low, high = self.reward_range
            raise ConfigError(f"--reward-range takes the lower end first, got {low:g} and {high:g}")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What `klimb experience score` is asked.

    Attributes:
        model: A Hugging Face folder, a .gguf file, `smollm2-135m`, or a run's folder.
        into: Folder of the new store.
        where: Only these samples, e.g. `source = 'log' and reward is not null`.
        kind: What the scores are: log-mu (by the model that drew the responses) or log-ref (by any reference).
        assume_plain: Samples that do not say how they were drawn were drawn at temperature 1, nothing cut off.
        is_logging_model: The model is the one that drew them, though they name another model or a trained version.
        dtype: Of the matrix products: float32, bfloat16 or auto.
    """

    model: str
    into: Path
    where: str = ""
    kind: Annotated[ScoreKind, Parameter(name="--as")] = "log-mu"
    assume_plain: Switch = False
    is_logging_model: Switch = False
    dtype: str = "float32"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How `klimb import` and `klimb start` read files.

    Attributes:
        kind: What the rows are; guessed without it.
        columns: Names of the file's columns, such as `prompt=question response=answer`; `id=NAME` names samples by it.
        ignore: Columns of the file that are left out.
        ids: `content`: ids of the file are not unique, so name each row by a hash of its content.
        scale: Lowest and highest rating that can be given; ratings become 0 to 1.
        value_map: What texts stand for, such as `good=1 bad=0`.
        dates: What comes first in dates such as 01/05/2026; without it, the whole column has to show it.
        sampling: Settings that the requests do not say and you know, such as `temperature=1 top_p=1`.
        log_probs: What the recorded log-probabilities are of: the model itself, or its distribution after temperature
            and truncation.
        model: Whose tokenizer turns logged token strings, and conversations that are text alone, into ids, and bounds
            ids and lengths; log_mu stays the logged model's.
        turns: Of whole conversations, take all turns of the assistant behind the first question as what was drawn; else
            the last alone.
        max_reward: Reject rewards of larger magnitude.
        max_tokens: Reject rows with more prompt and response tokens; without it, as many as the model takes.
        scores: Langfuse's scores of these observations.
        score_name: Import the ratings of this name alone.
        keep_users: Keep user ids as they are; else they are hashed.
        redact: Replace personal data in texts, such as mail addresses and card numbers; their tokens are dropped.
        max_line_megabytes: Reject longer lines.
        strict: Stop at the first row that cannot be imported.
    """

    kind: Annotated[str, Parameter(name="--as", show_default=False, help=ROW_KINDS)] = ""
    columns: Pairs = ()
    ignore: Pairs = ()
    ids: Literal["logged", "content"] = "logged"
    scale: Annotated[tuple[float, float] | None, Parameter(negative="")] = None
    value_map: Annotated[Pairs, Parameter(name="--map")] = ()
    dates: Annotated[Literal["", "day-first", "month-first", "year-first"], Parameter(show_default=False)] = ""
    sampling: Pairs = ()
    log_probs: Literal["raw", "processed"] = "raw"
    model: TextOrNone = ""
    turns: Switch = False
    max_reward: float = math.inf
    max_tokens: int | None = None
    scores: PathOrNone = None
    score_name: TextOrNone = ""
    keep_users: Switch = False
    redact: Switch = False
    max_line_megabytes: int = 16
    strict: Switch = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `klimb compare` is asked.

    Attributes:
        folder: Where the study goes; without it, `study.folder`/`study.name`.
        jobs: Runs at the same time; without it, as `study.jobs` says.
        only: Run these methods alone.
        dry_run: Show what there is to run, and stop.
        retry_failed: Run again what failed; the failed run is kept aside.
        report_only: Run nothing; compare what there is.
    """

    folder: PathOrNone = None
    jobs: int | None = None
    only: Pairs = ()
    dry_run: Switch = False
    retry_failed: Switch = False
    report_only: Switch = False

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {self.jobs}; leave it out for one a GPU or a core")
