"""What a number is held against: its value, its unit, and where it comes from.

A table of thresholds is a frozen dataclass whose fields are made by `limit`. The value is read as a plain number; the
row, with unit and source, by `rows_of`, from which the tables of the documents are made.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

OWN = "own choice"
"""A number with no source: a place to look twice, not a law."""


@dataclass(frozen=True)
class Threshold:
    """One row of a table of thresholds.

    Attributes:
        value: the default.
        unit: of what the number counts, in words.
        source: where it comes from.
    """

    value: float
    unit: str
    source: str


def limit(value: float, unit: str, source: str) -> Any:
    """Make a field of a table of thresholds."""
    return field(default=value, metadata={"threshold": Threshold(value, unit, source)})


def rows_of(table: type[Any]) -> Mapping[str, Threshold]:
    """Return the table's rows by name."""
    return {entry.name: entry.metadata["threshold"] for entry in fields(table) if entry.default is not MISSING}


def check_values(table: Any) -> None:
    """Return if every value of the table can be compared with.

    Raises:
        ValueError: one is negative or not finite.
    """
    for entry in fields(table):
        value: float = getattr(table, entry.name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"threshold {entry.name} must be finite and >= 0, got {value}")
