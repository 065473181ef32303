"""All that a run has written down about itself, read back: of finished runs, of runs that go on, of cut-off ones."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from klimb.training import EvaluationRecord, ProblemRecord, read_evaluations, read_metrics
from klimb.workbench.config import ConfigError
from klimb.workbench.runs import RunFolder, is_run

Row = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        folder: where it is.
        config: the resolved configuration as tables.
        provenance: commit, seed, versions.
        rows: one a step, as in metrics.jsonl; None stands for a number that was not finite.
        evaluations: in the order they were made, before and after training included. A run without evaluations.jsonl
            has what its other files know: `problems` then holds few or none.
        guard: `before`, `after` and `events` of guard.json; empty if nothing was guarded.
        summary: the results; empty until the run has finished.
    """

    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    rows: tuple[Row, ...]
    evaluations: tuple[EvaluationRecord, ...]
    guard: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary)

    @property
    def seed(self) -> int | None:
        """Of all its random numbers."""
        return self.config.get("seed")

    @property
    def num_steps(self) -> int:
        """Steps of the loop that were written down."""
        return len(self.rows)

    @property
    def before(self) -> EvaluationRecord | None:
        """The evaluation of the untrained policy."""
        return next((made for made in self.evaluations if made.when == "before"), None)

    @property
    def last(self) -> EvaluationRecord | None:
        """The newest evaluation of a trained policy."""
        return next((made for made in reversed(self.evaluations) if made.when != "before"), None)

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key such as `objective.beta`; the default where the configuration has none."""
        found: Any = self.config
        for part in key.split("."):
            if not isinstance(found, Mapping) or part not in found:
                return default
            found = found[part]
        return found

    def curve(self, metric: str, *, over: str = "step") -> tuple[list[float], list[float]]:
        """Two lists, x and y: the metric over the steps (or over `num_tokens_generated`, `elapsed_seconds`).

        Only rows in which both are finite numbers.
        """
        pairs = [(row.get(over), row.get(metric)) for row in self.rows]
        kept = [(x, y) for x, y in pairs if is_number(x) and is_number(y)]
        return [float(x) for x, _ in kept], [float(y) for _, y in kept]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics that any row has, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))


def read_run(path: Path) -> RunRecord:
    """The record of the run in this folder; files that a run has not written yet count as empty.

    Raises:
        ConfigError: there is no run, or one of its files is not what a run writes.
    """
    folder = RunFolder(path)
    if not is_run(path) and not folder.metrics.is_file():
        raise ConfigError(f"{path} holds no run: there is no {folder.metrics.name}; give a run's folder")
    rows = _rows(folder.metrics)
    summary = _tables(folder.summary)
    return RunRecord(
        folder=path,
        config=_tables(folder.config),
        provenance=_tables(folder.provenance),
        rows=rows,
        evaluations=_evaluations(folder, rows, summary),
        guard=_tables(path / "guard.json"),
        summary=summary,
    )


def is_number(value: object) -> TypeGuard[float]:
    """True for a finite int or float that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tables(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); was it edited?") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold an object, got a {type(content).__name__}")
    return content


def _rows(path: Path) -> tuple[Row, ...]:
    if not path.is_file():
        return ()
    try:
        rows = read_metrics(path)
    except ValueError as error:
        raise ConfigError(f"{path} has a line that is not valid JSON ({error}); was it edited?") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} must hold one object a line")
    return tuple(rows)


def _evaluations(folder: RunFolder, rows: Sequence[Row], summary: Mapping[str, Any]) -> tuple[EvaluationRecord, ...]:
    try:
        kept = read_evaluations(folder.evaluations)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder.evaluations} is not what a run writes ({error!r}); was it edited?") from None
    return tuple(kept) or _from_other_files(folder, rows, summary)


def _from_other_files(
    folder: RunFolder, rows: Sequence[Row], summary: Mapping[str, Any]
) -> tuple[EvaluationRecord, ...]:
    """What before.json, the steps' rows and summary.json know of a run's evaluations."""
    before = _tables(folder.path / "before.json")
    facts = _Facts(
        count=int(before.get("count", 0)),
        num_samples=int(before.get("num_samples", 0)),
        is_accuracy=bool(before.get("is_accuracy", False)),
    )
    found: list[EvaluationRecord] = []
    if before:
        shown = tuple(_shown(number, answer) for number, answer in enumerate(before.get("answers", ())))
        found.append(facts.record("before", 0, before, problems=shown))
    measured = [row for row in rows if "evaluation_mean" in row]
    found += [facts.record("during", int(row.get("step") or 0), _of_row(row)) for row in measured]
    after = summary.get("held_out", {}).get("after")
    return (*found, facts.record("after", int(summary["num_steps"]), after)) if after else tuple(found)


@dataclass(frozen=True)
class _Facts:
    """What is the same in all evaluations of one run."""

    count: int
    num_samples: int
    is_accuracy: bool

    def record(
        self, when: Any, step: int, numbers: Mapping[str, Any], *, problems: tuple[ProblemRecord, ...] = ()
    ) -> EvaluationRecord:
        return EvaluationRecord(
            when=when,
            step=step,
            num_tokens_generated=0,
            elapsed_seconds=0.0,
            mean=_float(numbers.get("mean")),
            low=_float(numbers.get("low")),
            high=_float(numbers.get("high")),
            count=self.count,
            num_errors=int(numbers.get("num_errors") or 0),
            num_samples=self.num_samples,
            is_accuracy=self.is_accuracy or bool(numbers.get("pass_at")),
            pass_at=dict(numbers.get("pass_at", {})),
            greedy=numbers.get("greedy"),
            length_mean=_float(numbers.get("length_mean")),
            truncated_fraction=math.nan,
            problems=problems,
        )


def _of_row(row: Row) -> dict[str, Any]:
    """The numbers of an evaluation under their names without `evaluation_`."""
    numbers = {name.removeprefix("evaluation_"): value for name, value in row.items() if name.startswith("evaluation_")}
    pass_at = {name.removeprefix("pass_at_"): value for name, value in numbers.items() if name.startswith("pass_at_")}
    return {**numbers, "pass_at": pass_at}


def _shown(number: int, answer: Mapping[str, Any]) -> ProblemRecord:
    value = answer.get("value")
    return ProblemRecord(
        problem_id=f"shown-{number}",
        question=str(answer.get("question", "")),
        values=(float(value),) if is_number(value) else (),
        answers=(str(answer.get("answer", "")),),
    )


def _float(value: object) -> float:
    return float(value) if is_number(value) else math.nan
