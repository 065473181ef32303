"""All that a run has written down about itself, as one value. Reading it is `klimb.training.run_folder`'s work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from klimb.experience.samples import Sample
from klimb.findings.evaluations import EvaluationRecord
from klimb.findings.run.ending import Ending

Row = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        folder: where it is.
        config: the resolved configuration as tables.
        provenance: seed, commits of klimb and of the user's repository, versions, hashes of data.
        rows: one a step, as in metrics.jsonl; None stands for a number that was not finite.
        evaluations: in the order they were made, before and after training included.
        guard: `before`, `after` and `events` of guard.json; empty if nothing was guarded.
        summary: the results; empty until the run has finished.
        prompt_differences: how the prompts of training, warm-up and evaluations differ, one sentence each.
        left_out: what was left out because the model cannot be asked it, one sentence for each kind of thing.
        history: what resumes changed, in order: `step` (the last one with the old value), `key`, `old`, `new`, `time`.
        conversations: the first samples of the newest step of rollouts that are conversations, at most a few; none of a
            run of single answers.
        ending: how its last process ended without finishing it; None where it finished, goes on, or was killed.
        damage: what of its files cannot be read and is left out, a sentence for each file.
    """

    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    rows: tuple[Row, ...]
    evaluations: tuple[EvaluationRecord, ...]
    guard: Mapping[str, Any]
    summary: Mapping[str, Any]
    prompt_differences: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    conversations: tuple[Sample, ...] = ()
    ending: Ending | None = None
    damage: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary) and self.ending is None

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
        """Return the value of a dotted key such as `objective.beta`; the default where the configuration has none."""
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


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a finite int or float that is no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
