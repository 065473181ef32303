"""A finding: what a run's numbers say, how much that matters, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["bad", "warning", "note", "good"]


SEVERITIES: tuple[Severity, ...] = ("bad", "warning", "note", "good")
"""From what to read first to what went well."""


Steps = tuple[int, int]
"""The first and the last step at which something shows."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a rule saw in one run.

    Attributes:
        severity: `bad`: the result is not to be trusted, or the model was harmed. `warning`: much of the run was
            wasted or soon will be. `note`: worth knowing. `good`: as it should be.
        title: the finding in one short sentence.
        evidence: the numbers and steps that show it.
        advice: the next thing to try, with the key of the configuration; empty where nothing is amiss.
        steps: where it shows; None if it is of the run as a whole.
    """

    severity: Severity
    title: str
    evidence: str
    advice: str = ""
    steps: Steps | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An observation with the rule that made it.

    Attributes:
        key: name of the rule, a heading in docs/findings.md.
        severity: as in `Observation`.
        title: the finding in one short sentence.
        evidence: the numbers and steps that show it.
        advice: the next thing to try; empty where nothing is amiss.
        metrics: names of the metrics that the rule reads.
        anchor: the heading of docs/metrics.md that explains them, such as `metrics.md#the-objective`.
        steps: where it shows; None if it is of the run as a whole.
    """

    key: str
    severity: Severity
    title: str
    evidence: str
    advice: str
    metrics: tuple[str, ...]
    anchor: str
    steps: Steps | None = None
