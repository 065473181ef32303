"""What one logged number is."""

from dataclasses import dataclass
from typing import Literal

Aggregate = Literal["mean", "sum", "max", "once"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of docs/metrics.md, of the report's glossary and of its charts. Its texts are Markdown.

    Attributes:
        name: as it is logged; `*` stands for anything, so that one row describes a family.
        unit: nats, a fraction (0 to 1), a count, seconds, or 1 (no unit).
        formula: how it is computed, or what it counts.
        healthy: where it is in runs that go well, with the source; empty where nothing can be said.
        outside: what it means elsewhere, and what to do.
        panel: title of the report's chart that draws it; empty if none of its own does.
        label: of its curve there; `*` becomes what the name's `*` stands for.
        aggregate: how the optimizer steps of one step of the loop become one number: a token-weighted mean, the sum,
            the largest; `once` if there is one number a step of the loop anyway.
    """

    name: str
    unit: str
    formula: str
    healthy: str = ""
    outside: str = ""
    panel: str = ""
    label: str = ""
    aggregate: Aggregate = "once"

    def __post_init__(self) -> None:
        if bool(self.panel) != bool(self.label):
            raise ValueError(f"metric {self.name}: a panel and the label of its curve go together, got {self!r}")
