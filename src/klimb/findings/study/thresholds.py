"""Every number that decides a comparison of a study, in one place, each with its unit and where it comes from."""

from dataclasses import dataclass

from klimb.findings.thresholds import OWN, check_values, limit


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a study says that two methods differ, and when it says how many more seeds would tell. docs/studies.md."""

    alpha: float = limit(
        0.05, "probability, two-sided, corrected for the number of comparisons", "the usual level of a test"
    )
    power: float = limit(
        0.8, "probability to find a difference of the size seen, which the seeds needed must reach", "Cohen 1988"
    )
    most_seeds: int = limit(100, "more seeds, beyond which only 'more than' is said", OWN)

    def __post_init__(self) -> None:
        check_values(self)


THRESHOLDS = Thresholds()
"""The defaults."""
