"""A finding: what numbers say, how much that matters, and what to do about it. Of data, of a run, of a study alike."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["bad", "warning", "unknown", "note", "good"]
"""`bad`: the result is not to be trusted, or the model was harmed, or data cannot be used so. `warning`: much was or
will be wasted, or beyond a limit. `unknown`: what the check needs is missing. `note`: worth knowing. `good`: as it
should be."""


STATUSES: tuple[Status, ...] = ("bad", "warning", "unknown", "note", "good")
"""From what to read first to what went well."""


Steps = tuple[int, int]
"""The first and the last step at which something shows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check, one rule or one question found.

    Attributes:
        name: of the check, the rule (a heading in docs/findings.md) or the question; a rule leaves it to its row.
        status: how it stands.
        title: what was found, in one short sentence; of a check of data what its result means, or why there is none.
        evidence: the numbers that show it, as people read them; each sentence of several on a line of its own.
        advice: the next thing to try, with the key of the configuration; empty where nothing is amiss.
        threshold: the number it was held against, as people read it; empty where there is none.
        source: where that threshold comes from.
        number: the result as a number; None where it is none or unknown.
        limit: the threshold in the unit of `number`, if it is one number that was worked out for this case.
        metrics: names of the logged numbers that were read.
        anchor: the heading of docs/metrics.md that explains them, such as `metrics.md#the-objective`.
        steps: where it shows; None if it is of the whole.
    """

    name: str = ""
    status: Status
    title: str
    evidence: str
    advice: str = ""
    threshold: str = ""
    source: str = ""
    number: float | None = None
    limit: float | None = None
    metrics: tuple[str, ...] = ()
    anchor: str = ""
    steps: Steps | None = None
